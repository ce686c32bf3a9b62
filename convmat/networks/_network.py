"""A network: stages that compute it, the affine map that it is, or is near a point, and bounds of what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convmat._messages import choose
from convmat.geometry import Array, integer
from convmat.networks._affine import AffineMap, NetworkMatrix
from convmat.networks._bounds import stage_bounds
from convmat.networks._draw import draw
from convmat.networks._functions import Interval
from convmat.networks._maps import Shape
from convmat.networks._norms import lipschitz_bound
from convmat.networks._report import Report, report
from convmat.networks._stages import Stage, Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Network:
    """A graph of stages, each an affine map or a function, that computes one array from another.

    `from_torch` and `from_onnx` make one.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Of one input and its output, without batch axes.
    stages : tuple of Stage
        The steps, each after those that it takes something from.
    dtype : dtype
        float32 or float64: that of the weights.
    """

    def __init__(
        self, stages: Sequence[Stage], source: Value, target: Value, dtype: npt.DTypeLike, shapes: tuple[Shape, Shape]
    ) -> None:
        self.stages = tuple(stages)
        self.dtype = np.dtype(dtype)
        self.input_shape, self.output_shape = shapes
        self._source, self._target = source, target

    def __repr__(self) -> str:
        kind = "affine, " if self.is_affine else ""
        return f"<Network of {len(self.stages)} stages: {kind}{self.input_shape} to {self.output_shape}, {self.dtype}>"

    @property
    def is_affine(self) -> bool:
        """Whether it is one affine map, whatever goes in."""
        return all(stage.is_affine for stage in self.stages)

    def astype(self, dtype: npt.DTypeLike) -> Network:
        """Return the same network with weights in another dtype, float32 or float64.

        Raises
        ------
        TypeError
            If it is another one.
        """
        wanted = check_float(dtype)
        stages = [stage.astype(wanted) for stage in self.stages]
        return Network(stages, self._source, self._target, wanted, (self.input_shape, self.output_shape))

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return what comes out.

        Parameters
        ----------
        x : array_like (..., *input_shape)
            Inputs, with any batch axes in front.

        Returns
        -------
        array (..., *output_shape)
            Outputs, in the dtype of the network; of float64 inputs in float64.

        Raises
        ------
        TypeError
            If `x` is not real.
        ValueError
            If it has another shape.
        """
        given = self._check(x)
        batch = given.shape[: given.ndim - len(self.input_shape)]
        result = self._run(given.reshape(prod(batch), *self._source.shape))
        return result.reshape((*batch, *self.output_shape))

    def _check(self, x: npt.ArrayLike) -> Array:
        given = np.asarray(x)
        if given.dtype.kind not in "fiu" or given.dtype.itemsize > 8:
            raise TypeError(f"x must be an array of real numbers, got dtype {given.dtype}")
        outer = given.ndim - len(self.input_shape)
        if outer < 0 or given.shape[outer:] != self.input_shape:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self.input_shape))}), got {given.shape}")
        wanted = np.float64 if given.dtype == np.float64 and self.dtype == np.float64 else self.dtype
        return given.astype(wanted, copy=False)

    def _run(self, x: Array) -> Array:
        """Return what comes out for a batch; values that nobody takes any more are forgotten on the way."""
        values, last = {0: x}, {self._target.number: len(self.stages) + 1}
        for number, stage in enumerate(self.stages, 1):
            for value in stage.inputs:
                last[value.number] = max(number, last.get(value.number, 0))
        for number, stage in enumerate(self.stages, 1):
            values[number] = stage.apply(*(values[value.number] for value in stage.inputs))
            for value in stage.inputs:
                if last[value.number] == number:
                    values.pop(value.number, None)
        return values[self._target.number]

    def affine(self) -> AffineMap:
        """Return the affine map that the network is.

        Returns
        -------
        AffineMap
            For which ``net.affine().apply(x)`` is ``net(x)``, up to rounding.

        Raises
        ------
        ValueError
            If a stage is not affine; it is named.
        """
        for stage in self.stages:
            if not stage.is_affine:
                raise ValueError(
                    f"the network must be affine, but stage {stage.name!r} is {stage.op}; "
                    "use at(x), which fixes what it does near x"
                )
        return self._map(self.stages)

    def at(self, x: npt.ArrayLike) -> AffineMap:
        """Return the affine map that the network is near a point: its first-order expansion there.

        Where all functions are piecewise linear, as ReLU is, the map is the network itself for all inputs with the same
        signs.

        Parameters
        ----------
        x : array_like
            The point, of shape `input_shape`.

        Returns
        -------
        AffineMap
            Its matrix is the Jacobian at x. At kinks the derivative is that of PyTorch: of ReLU at 0 it is 0.

        Raises
        ------
        TypeError
            If `x` is not real.
        ValueError
            If it has another shape.
        """
        point = self._check(x)
        if point.shape != self.input_shape:
            raise ValueError(f"x must be one point of shape {self.input_shape}, got {point.shape}")
        values, linear = {0: point.reshape(self._source.shape)}, []
        for number, stage in enumerate(self.stages, 1):
            arrays = [values[value.number] for value in stage.inputs]
            values[number] = stage.apply(*(array[None] for array in arrays))[0]
            linear.append(stage.at(values[number], *arrays))
        return self._map(tuple(linear))

    def bounds(self, low: npt.ArrayLike, high: npt.ArrayLike, *, stage: str | None = None) -> tuple[Array, Array]:
        """Return bounds of what comes out, for all inputs between bounds.

        Parameters
        ----------
        low, high : array_like
            The least and the largest input, of shape `input_shape` or broadcast to it.
        stage : str, optional
            The name of a stage: what it returns is bounded, in place of what the network does.

        Returns
        -------
        low, high : float64 array
            Of shape `output_shape`, or that of the stage's output. No input between the bounds has an output outside of
            these, in exact arithmetic with the network's weights.

        Raises
        ------
        ValueError
            If a lower bound is not at most the upper one, if there is no such stage, or a stage may be given what it is
            not defined for.

        Notes
        -----
        Interval arithmetic, one stage after the other [1]_, in double precision: matrices by middle and half width, and
        with outward rounding. It is proven for sums and products; elementary functions of NumPy and SciPy are taken to be
        within 16 units in the last place. Bounds are wider than the true range wherever two numbers depend on one another.

        References
        ----------
        .. [1] S. Gowal et al., "Scalable verified training for provably robust image classification", ICCV 2019.
        """
        ends = [np.broadcast_to(np.asarray(end, np.float64), self.input_shape) for end in (low, high)]
        first, last = (end.reshape(self._source.shape) for end in ends)
        if not (first <= last).all():
            raise ValueError("low must be at most high everywhere, got a larger one or NaN")
        names = [own.name for own in self.stages]
        number = self._target.number if stage is None else names.index(choose("stage", stage, names)) + 1
        found = {0: Interval(first, last)}
        for place, own in enumerate(self.stages[:number], 1):
            found[place] = stage_bounds(own.astype(np.float64), [found[value.number] for value in own.inputs])
        shape = self.output_shape if stage is None else self.stages[number - 1].output_shape
        return found[number].low.reshape(shape), found[number].high.reshape(shape)

    def lipschitz_bound(self, *, pairs: bool = False) -> float:
        """Return a bound of ‖f(x) − f(z)‖/‖x − z‖ for all inputs: the product of bounds of all stages' norms.

        Parameters
        ----------
        pairs : bool
            Whether two matrices that follow one another, with a function of each number between them, are bounded together
            where that is less [1]_. It builds their product, where that has at most 4 million numbers.

        Returns
        -------
        float
            The bound. It is infinite where a function has no bounded slope, as a product of two branches.

        Notes
        -----
        Norms of convolutions are bounded by `spectra.norm_bounds`, which is proven; those of other matrices by LAPACK, with
        a margin of 1e-9, or by Schur's test.

        References
        ----------
        .. [1] P. L. Combettes, J.-C. Pesquet, "Lipschitz certificates for layered network structures driven by averaged
           activation operators", SIAM J. Math. Data Sci. 2, 2020.
        """
        return lipschitz_bound(self.stages, self._target.number, pairs)

    def report(self, *, norms: bool = False) -> Report:
        """Return a table of the stages: shapes, nonzeros, bytes, receptive field; no matrix is built for it.

        Parameters
        ----------
        norms : bool
            Whether to bound the norm of each stage, too, which may take minutes.

        Returns
        -------
        Report
            It prints as a table, and shows one in notebooks.
        """
        return report(self.stages, self._source.shape, norms)

    def draw(self, output: int | None = None, *, figure: Figure | None = None) -> Figure:
        """Draw the matrices of the affine stages, one after the other, and trace back what one output reads.

        Parameters
        ----------
        output : int, optional
            The flat index of the output; one in the middle by default.
        figure : Figure, optional
            The figure of matplotlib to draw in, best one with a constrained layout; a new one by default.

        Returns
        -------
        Figure
            A panel for each matrix: its nonzeros, and in red those that the output depends on. Needs matplotlib, which
            the extra "demo" installs.

        Raises
        ------
        ValueError
            If there is no such output.
        """
        size = prod(self.output_shape)
        own = integer("output", size // 2 + sum(self.output_shape[-1:]) // 2 if output is None else output, 0)
        own = min(own, size - 1) if output is None else own
        if own >= size:
            raise ValueError(f"output must be less than {size}, the number of outputs, got {own}")
        return draw(self.stages, self._target, own, figure)

    def _map(self, stages: tuple[Stage, ...]) -> AffineMap:
        shapes = self.input_shape, self.output_shape
        matrix = NetworkMatrix(stages, self._source, self._target, self.dtype, shapes)
        own = Network(stages, self._source, self._target, self.dtype, shapes)
        return AffineMap(matrix, own(np.zeros(self.input_shape, self.dtype)))


def check_float(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return a dtype that networks have."""
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = np.dtype(object)
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
    return wanted


def without_batch(shape: Shape) -> Shape:
    """Return a shape without its first axis, where that is one."""
    return shape[1:] if shape and shape[0] == 1 else shape
