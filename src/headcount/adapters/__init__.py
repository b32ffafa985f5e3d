"""Foreign formats: one decoder a file, and the loop that translates them to the canonical topics."""
