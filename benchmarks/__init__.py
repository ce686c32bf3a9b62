"""Benchmarks: suites for asv, and comparisons with other packages that run by themselves."""
