"""NATS: connection, JetStream, streams, key-value buckets and their watch, log reader, secure delete."""
