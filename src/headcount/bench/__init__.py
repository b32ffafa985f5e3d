"""`headcount bench`: a system that grows and shrinks, under the load of a day."""
