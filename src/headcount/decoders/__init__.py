"""The formats that headcount decodes, and the canonical messages that become of them."""
