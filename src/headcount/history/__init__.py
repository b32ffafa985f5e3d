"""The last 24 hours: fixes and counts in Parquet segments, their retention, erasure and queries."""
