"""Everything about NATS: connection, streams, key-value buckets, log reader and secure delete."""
