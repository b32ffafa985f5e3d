"""Devices: registry, authentication, permissions, credentials, bans, commands, pseudonyms."""
