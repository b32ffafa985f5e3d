"""`headcount prove`: the system under failures, compared with the counting rules."""
