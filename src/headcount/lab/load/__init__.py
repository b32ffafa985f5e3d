"""`headcount bench`: the day of a campus within minutes, against a system that scales."""
