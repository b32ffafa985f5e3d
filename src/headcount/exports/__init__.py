"""Exports of the stored history in formats of other programs."""
