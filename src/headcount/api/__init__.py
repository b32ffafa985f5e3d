"""HTTP: the numbers as JSON, as a live stream and as metrics; positions only for this machine."""
