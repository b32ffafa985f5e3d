"""The broker: one NATS server that speaks MQTT to devices and keeps the log."""
