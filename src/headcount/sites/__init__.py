"""Site files on disk, and the one that ships with headcount."""
