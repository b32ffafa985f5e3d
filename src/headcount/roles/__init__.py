"""Process roles: what each one opens, runs and closes."""
