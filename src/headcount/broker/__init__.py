"""The broker: one NATS server that accepts devices over MQTT and stores the log."""
