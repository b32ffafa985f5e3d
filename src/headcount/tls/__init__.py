"""TLS: creating, checking and reloading certificates; a certificate authority for devices."""
