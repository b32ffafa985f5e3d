"""The proof: a real system under fire, compared with the rules by brute force."""
