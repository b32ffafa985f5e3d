"""`headcount prove`: the system under fire, compared with the rules."""
