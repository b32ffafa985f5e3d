"""What keeps people's data theirs: erasing it everywhere, and proof of how old the oldest is."""
