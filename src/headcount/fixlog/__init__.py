"""The fix log: streams by partition, their protocol, their reader."""
