"""Devices: registry, authentication, permissions, commands, pseudonyms."""
