"""The rules that are compared, each in our own words; `ALL_RULES` is in `comparison`."""
