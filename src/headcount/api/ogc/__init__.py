"""OGC API - Features: collections of zones, counts and fixes, their parameters and documents."""
