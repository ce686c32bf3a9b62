"""Code that numba compiles, and keeps on the disk; `loader` is the only way to it."""
