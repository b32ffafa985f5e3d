"""Privacy: erasure of devices from all stores, and a report on the age of stored data."""
