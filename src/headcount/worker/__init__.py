"""Counting at work: a partition's engine, where it stopped, telling the result."""
