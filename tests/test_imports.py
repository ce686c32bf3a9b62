"""What is imported, and when: a first small product waits for nothing that it does not need."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

LATE = ("numba", "scipy.fft", "threadpoolctl", "torch", "matplotlib")


def python(code, **environment):
    """Run code in another process, and return the words that it prints."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": path} | environment
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)], check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, (run.returncode, run.stderr[-2000:])
    return run.stdout.split()


@pytest.mark.parametrize(
    "work",
    [
        "",
        "convmat.Convolution(numpy.ones((3, 3)), (8, 8)).apply(numpy.ones((8, 8)))",
        "convmat.Convolution(numpy.ones((3, 3)), (40, 40)).T.apply(numpy.ones((38, 38)))",
        "convmat.convolution_matrix(numpy.ones((3, 3)), (8, 8))",
    ],
)
def test_small_work_imports_numpy_and_sparse_matrices_alone(work):
    imported = python(f"""
        import sys, numpy, scipy.sparse.linalg
        before = set(sys.modules)
        import convmat
        {work}
        print(*sys.modules.keys() - before)
    """)
    assert "convmat.operators" in imported
    assert not [name for name in imported if name in LATE]


def test_spectra_import_scipy_fft():
    code = "import convmat, numpy; convmat.Convolution(numpy.ones(99), 500, engine='fft').apply(numpy.ones(500))"
    assert python(f"import sys; {code}; print('scipy.fft' in sys.modules)") == ["True"]
