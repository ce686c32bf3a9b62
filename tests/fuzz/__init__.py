"""Draws convolutions without end, and compares all that convmat computes of them with an oracle: `python -m tests.fuzz`."""
