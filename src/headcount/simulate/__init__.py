"""Movement to count: a crowd from a seed, recorded traces, and MQTT clients that send both."""
