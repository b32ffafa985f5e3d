"""The last 24 hours: fixes and counts in Parquet segments, written, dropped and asked."""
