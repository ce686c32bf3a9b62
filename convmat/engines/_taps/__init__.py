"""The engine `taps`: compiled loops over the taps, in tiles that stay in registers."""
