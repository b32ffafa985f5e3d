"""The oracle under its old name."""

from headcount.prove.oracle import KINDS, Device, Event, Numbers, Oracle, Row, replay

__all__ = ["KINDS", "Device", "Event", "Numbers", "Oracle", "Row", "replay"]
