"""What `python -m convmat` does: the demo and the exercise."""

from convmat.commands._main import main

__all__ = ["main"]
