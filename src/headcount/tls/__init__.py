"""TLS: certificates made, checked and loaded again when they change; a small CA for devices."""
