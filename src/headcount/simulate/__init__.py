"""Movement to count: a crowd from a seed, recorded traces, and MQTT clients that send both."""

#: MQTT connections of a fleet; further devices share them.
CONNECTIONS = 300
