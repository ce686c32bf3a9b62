"""The engine `winograd`: fewer multiplications, by transforms of small tiles."""
