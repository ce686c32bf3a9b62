"""The door of the command line: ``python -m convmat``."""

import sys

from convmat.commands import main

if __name__ == "__main__":
    sys.exit(main())
