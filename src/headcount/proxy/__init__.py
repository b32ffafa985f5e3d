"""HAProxy in front of brokers and APIs: its configuration, its process, and who stands behind it."""
