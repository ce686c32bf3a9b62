"""Code that runs in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

REPOSITORY = Path(__file__).parent.parent


def python(code, **environment):
    """Run code in another process, and return the words that it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])} | environment
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)], check=False, env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, (run.returncode, run.stderr[-2000:])
    return run.stdout.split()
