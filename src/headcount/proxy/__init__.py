"""The balancer: HAProxy in front of brokers and APIs."""
