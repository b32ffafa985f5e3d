"""The counting worker: partitions of the log, who owns them, and what is published and stored of them."""
