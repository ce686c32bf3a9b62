"""What imports what: floors, and a first small product that waits for nothing it does not need."""

import ast
from pathlib import Path

import pytest

import convmat
from tests.processes import python

PACKAGE = Path(convmat.__file__).parent
WINGS = ("cupy", "spectra", "inverse", "networks", "dask", "torch")
# A module imports from its own package, or from what another one's face names on a floor below. Wings stand side by side.
FLOORS = [("_messages", "textbook"), ("_runtime",), ("geometry",), ("matrices",), ("engines",), ("operators",), WINGS]
FLOORS += [("__init__",), ("commands",), ("__main__",)]
NEIGHBOURS = {("inverse", "spectra"), ("networks", "spectra")}
LATE = ("numba", "scipy.fft", "threadpoolctl", "torch", "matplotlib")


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
    assert "convmat.operators._operators" in imported
    assert not [name for name in imported if name in LATE]


def test_spectra_import_scipy_fft():
    code = "import convmat, numpy; convmat.Convolution(numpy.ones(99), 500, engine='fft').apply(numpy.ones(500))"
    assert python(f"import sys; {code}; print('scipy.fft' in sys.modules)") == ["True"]


def imports_of(file):
    """Return the modules of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("convmat"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("convmat"):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                is_module = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py").exists()
                yield module if is_module else node.module
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file} imports by dots"


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_import_from_floors_below_by_their_faces(file):
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    own = file.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imports_of(file):
        part, *inside = module.split(".")[1:] or ["__init__"]
        if part != own:
            assert floor[part] < floor[own] or (own, part) in NEIGHBOURS, f"{file} imports {module}"
            assert not inside, f"{file} imports {module}, not what its face names"


def test_faces_name_what_there_is():
    for face in PACKAGE.glob("*/__init__.py"):
        if face.parent.name not in WINGS:
            module = __import__(f"convmat.{face.parent.name}", fromlist=["*"])
            assert all(hasattr(module, name) for name in getattr(module, "__all__", ()))


LONG = {"tile_product", "generate"}  # one loop of LLVM instructions, which its docstring shows as pseudo-code


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(file):
    source = file.read_text("utf-8")
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG:
            first = node.body[min(1, len(node.body) - 1)] if ast.get_docstring(node) else node.body[0]
            assert node.end_lineno - first.lineno < 60, node.name
