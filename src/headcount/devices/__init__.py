"""Devices: under which name they may be spoken of."""
