"""Actors of the audit log that are not API callers."""

from __future__ import annotations

from headcount.access.roles import Caller, caller

#: The command line: its user holds the deployment's secret, so nothing restricts it.
COMMAND_LINE = caller("admin", "command line")
#: A person who signed in with their device's credentials.
DEVICE_OWNER = Caller("public", "the device itself", frozenset())
#: A person who redeems a one-time link or claim code.
LINK_HOLDER = Caller("public", "a link", frozenset())
