"""The counting engine: pure, synchronous, without clock, socket, file, logger or randomness."""
