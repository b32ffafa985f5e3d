"""The counting worker: ownership of partitions, counting, snapshots, publishing."""
