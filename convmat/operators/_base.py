"""W and Wᵀ as linear operators of any array library: dtypes, batches and conjugation on one side, engines on the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from itertools import chain
from math import log10, prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from convmat._messages import choose
from convmat._runtime import check_memory
from convmat.engines import Explanation
from convmat.geometry import ConvolutionGeometry, RowRange, as_dtype, csr_nbytes, integer
from convmat.operators._products import Array, Products

_MOST = 2**63 - 1  # along an axis of an array
# Libraries of arrays, and the packages that have operators for them: loaded by name, as no family imports another.
_FAMILIES = {"numpy": "convmat.operators", "cupy": "convmat.cupy"}


class OperatorBase(ABC):
    """W, Wᵀ or the conjugate of either.

    A library's own class inherits from this one first and from the library's ``LinearOperator`` next. It adds what differs:
    `_library`, `_products_type`, `_kind`, `_of_host`, `_to_host`, `_check_out` and `tosparse`; `_matvec` and `_matmat`, as
    its ``LinearOperator`` calls them; and `kernel`, `apply` and `with_kernel`, whose docstrings and errors name the
    library's arrays.
    """

    dtype: np.dtype[Any]
    _transposed = False
    _library: str  # its key in _FAMILIES
    _products_type: type[Products]

    @staticmethod
    @abstractmethod
    def _kind(transposed: bool) -> type[OperatorBase]:
        """Return the library's class for W or for Wᵀ."""

    @staticmethod
    @abstractmethod
    def _of_host(kernel: Any) -> Array:
        """Return a kernel of NumPy as one of the library."""

    @abstractmethod
    def _to_host(self) -> Any:
        """Return the kernel as one of NumPy, not conjugated."""

    @staticmethod
    @abstractmethod
    def _check_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise unless a result can be written to an array."""

    @classmethod
    def _of(cls, products: Products, conjugated: bool = False) -> Self:
        """Return an operator without asking for a kernel and options again."""
        operator = object.__new__(cls)
        operator._set(products, conjugated)
        return operator

    def _set(self, products: Products, conjugated: bool = False) -> None:
        geometry, step = products.geometry, -1 if self._transposed else 1
        super().__init__(products.kernel.dtype, geometry.shape[::step])  # type: ignore[call-arg]
        self._products, self._conjugated = products, conjugated
        self._relatives: list[OperatorBase] = []
        self._channels = () if geometry.has_channels else (1,)  # the axis that engines want and these arrays lack
        self._input_shape, self._output_shape = (geometry.input_shape, geometry.output_shape)[::step]
        products.family[self._transposed, conjugated] = self

    def _relative(self, transposed: bool, conjugated: bool) -> Any:
        """Return the transpose and/or conjugate.

        Whoever first asks for a relative keeps it, and not the other way round, so that no cycle holds a matrix in memory.
        """
        conjugated = conjugated and self.dtype.kind == "c"
        relative = self._products.family.get((transposed, conjugated))
        if relative is None:
            relative = self._kind(transposed)._of(self._products, conjugated)
            self._relatives.append(relative)
        return relative

    @property
    def geometry(self) -> ConvolutionGeometry:
        """The geometry of the convolution, also for its transpose."""
        return self._products.geometry

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what goes in."""
        return self._input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what comes out."""
        return self._output_shape

    @property
    def dims(self) -> tuple[int, ...]:
        """The same as `input_shape`, under the name that PyLops has for it."""
        return self._input_shape

    @property
    def dimsd(self) -> tuple[int, ...]:
        """The same as `output_shape`, under the name that PyLops has for it."""
        return self._output_shape

    @property
    def engine(self) -> str:
        """The engine asked for."""
        return self._products.engine

    def _apply(self, x: Array, out: Array | None = None) -> Array:
        """Apply the operator to an array (..., *input_shape) of the library and of a supported dtype."""
        outer = x.ndim - len(self._input_shape)
        if outer < 0 or x.shape[outer:] != self._input_shape:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self._input_shape))}), got {x.shape}")
        arrays = self._products.arrays
        shape = (*x.shape[:outer], *self._output_shape)
        dtype = x.dtype if x.dtype == self.dtype else np.result_type(self.dtype, x.dtype)
        if out is None:
            out, direct = arrays.empty(shape, dtype), True
        else:
            self._check_out(out, shape, dtype)
            direct = out.flags.c_contiguous and not arrays.may_share_memory(out, x)
        if dtype.kind == "c" and self.dtype.kind != "c":  # a real operator on the parts of a complex array
            parts = self._multiply(arrays.stack([x.real, x.imag]), dtype.type(0).real.dtype)
            out.real, out.imag = parts[0], parts[1]
        elif self._conjugated:
            arrays.conj(self._multiply(x.conj(), dtype), out=out)
        elif direct:
            self._multiply(x, dtype, out)
        else:
            out[...] = self._multiply(x, dtype)
        return out

    def _multiply(self, x: Array, dtype: np.dtype[Any], out: Array | None = None) -> Array:
        """Return the product of arrays (..., *input_shape) in a dtype that the kernel can be cast to."""
        batch = x.shape[: x.ndim - len(self._input_shape)]
        if out is None:
            out = self._products.arrays.empty((*batch, *self._output_shape), dtype)
        x = self._products.arrays.ascontiguousarray(x, dtype)
        leading = (prod(batch), *self._channels)
        images, results = x.reshape(*leading, *self._input_shape), out.reshape(*leading, *self._output_shape)
        self._products.multiply(self._transposed, images, results)
        return out

    def _hint(self, error: ValueError, x: Any) -> None:
        """Raise an error that names `apply` if `x` has the shape of an array that `apply` takes."""
        shape, own, size = np.shape(x), self._input_shape, prod(self._input_shape)
        is_array = not hasattr(x, "matvec")  # and no operator
        if len(shape) > 1 and shape[-len(own) :] == own and is_array and self._is_from_library(error):
            raise ValueError(
                f"x must be a vector of {size} numbers, or a matrix of columns of as many, got an array of shape {shape}; "
                f"for arrays of shape (..., {', '.join(map(str, own))}) use A.apply(x)"
                f"{', or A @ x.ravel()' if shape == own else ''}"
            ) from None

    def _is_from_library(self, error: Exception) -> bool:
        """Tell whether the library's operator raised an error, and not the product that it called."""
        frame = error.__traceback__
        while frame and frame.tb_next:
            frame = frame.tb_next
        libraries = {kind.__module__ for kind in type(self).__mro__ if not kind.__module__.startswith("convmat.")}
        return frame is not None and frame.tb_frame.f_globals["__name__"] in libraries

    def _rmatvec(self, x: Array) -> Array:
        return self._adjoint()._matvec(x)

    def _rmatmat(self, X: Array) -> Array:
        return self._adjoint()._matmat(X)

    def _transpose(self) -> Any:
        return self._relative(not self._transposed, self._conjugated)

    def _adjoint(self) -> Any:
        return self._relative(not self._transposed, not self._conjugated)

    def conj(self) -> Any:
        """Return the operator with the complex conjugate of the matrix."""
        return self._relative(self._transposed, not self._conjugated)

    conjugate = conj

    def _with_kernel(self, kernel: Array) -> Self:
        """Return the same operator with another kernel, of the library and of a supported dtype."""
        shape = self._products.kernel.shape
        if kernel.shape != shape:
            raise ValueError(f"kernel must have shape {shape}, got {kernel.shape}")
        return self._of(self._products.with_kernel(kernel))

    def to(self, library: str) -> Any:
        """Return the same operator for the arrays of another library.

        Parameters
        ----------
        library : {"numpy", "cupy"}
            "cupy" copies the kernel to the device and returns an operator of `convmat.cupy`, "numpy" copies it to the host
            and returns one of `convmat`. For the operator's own library this is the operator itself.

        Returns
        -------
        operator
            With the same engine, if there is one of that name, else with ``engine="auto"``.

        Raises
        ------
        ModuleNotFoundError
            If the library is not installed.
        TypeError
            If `library` is no str, or the kernel is of a dtype that the library's sparse matrices cannot hold.
        ValueError
            If there is no such library.
        """
        library = choose("library", library, _FAMILIES)
        if library == self._library:
            return self
        name = "TransposedConvolution" if self._transposed else "Convolution"
        kind: type[OperatorBase] = getattr(import_module(_FAMILIES[library]), name)
        own = self._products
        engine = own.engine if own.engine in kind._products_type.engines else "auto"
        kernel = kind._of_host(self._to_host())
        products = kind._products_type(own.geometry, kernel, own.flip, engine, local=own.local)
        return kind._of(products, self._conjugated)

    @property
    def nnz(self) -> int:
        """The number of nonzeros of the matrix, which is not built for it."""
        return self.geometry.nnz

    def __call__(self, x: Any) -> Array:
        """Apply the operator to arrays in their own shape, as `apply` does."""
        return self.apply(x)

    @abstractmethod
    def apply(self, x: Any, out: Any = None) -> Array:
        """Apply the operator to arrays in their own shape."""

    @abstractmethod
    def tosparse(self, format: str = "csr", rows: RowRange = None) -> Any:
        """Return the matrix, or a range of its rows, in a sparse format, built anew."""

    def tocsr(self, rows: RowRange = None) -> Any:
        """Return the matrix, or a range of its rows, as a CSR array, built anew."""
        return self.tosparse("csr", rows)

    def toarray(self) -> Array:
        """Return the matrix as a dense array.

        Raises
        ------
        MemoryError
            If that does not fit into memory.
        """
        products, rows, columns = self._products, prod(self._output_shape), prod(self._input_shape)
        nbytes = rows * columns * self.dtype.itemsize
        nbytes += csr_nbytes(rows, columns, self.geometry.nnz, self.dtype.itemsize)
        check_memory(
            lambda: f"the dense {rows} × {columns} matrix, with the sparse one that fills it, takes",
            nbytes,
            "store its nonzeros alone with tocsr(), or apply it without storing it",
            products.available_memory,
            products.place,
        )
        return self.tocsr().toarray()

    def explain(self, batch: int = 1, dtype: npt.DTypeLike | None = None) -> Explanation:
        """Return what every engine is estimated to cost, and which one is chosen, for both directions.

        Parameters
        ----------
        batch : int
            Number of arrays in a product, at least 1.
        dtype : dtype, optional
            That of the arrays; the operator's by default.

        Returns
        -------
        Explanation
            Prints as a table; its `estimates` hold the numbers.

        Raises
        ------
        TypeError
            If `batch` is no int, or `dtype` no supported dtype.
        ValueError
            If `batch` is less than 1, or more than an array can have.
        """
        batch = integer("batch", batch, 1)
        if batch > _MOST:
            value = batch if batch < 10**30 else f"about 10**{int(batch.bit_length() * log10(2))}"
            raise ValueError(f"batch must be less than 2**63, as no axis of an array is longer, got {value}")
        wanted = self.dtype if dtype is None else np.result_type(self.dtype, as_dtype(dtype))
        directions = (self._transposed, not self._transposed)
        estimates = (self._products.estimates(transposed, wanted, batch) for transposed in directions)
        return Explanation(tuple(chain.from_iterable(estimates)))

    def __repr__(self) -> str:
        rows, columns = prod(self._output_shape), prod(self._input_shape)
        conjugate = ", conjugated" if self._conjugated else ""
        return (
            f"<{rows}x{columns} {type(self).__name__} of dtype {self.dtype}{self._products.place}{conjugate}, "
            f"{self.input_shape} to {self.output_shape}, engine {self.engine!r}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return self._of, (self._products, self._conjugated)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing of an operator can be changed
