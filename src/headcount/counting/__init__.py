"""The counting engine: pure, synchronous, without clock, socket, file, logger or randomness.

The rules of docs/concepts/counting-rules.md: `verdicts` is rule 1, `presence` rules 2 and 3, `counts` rule 4.
"""
