"""What is drawn: a convolution, dtypes, a batch, threads and thresholds; all of it follows from a seed and a number."""

from dataclasses import asdict, dataclass, field
from importlib import import_module
from math import prod

import numpy as np

from convmat import ConvolutionGeometry
from convmat.geometry import PADDING_MODES

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES += 4 * ("float32", "float64") + 2 * ("complex64", "complex128")
LAYOUTS = ("C", "C", "C", "F", "reversed", "every second", "swapped", "read-only")
FORMATS = ("csr", "csr", "csr", "csc", "csc", "coo", "bsr", "dia", "dok", "lil")
ENTRIES = 20_000  # nonzeros of W at most: above that, a case takes long
NUMBERS = 20_000  # inputs or outputs at most
# Module-level thresholds, and what is drawn for them, so that small cases take the ways of large ones.
THRESHOLDS = {
    "convmat.engines._taps.sweeps": {"PACKED": (16, 1 << 14), "_TASKS": (1, 5)},
    "convmat.engines._taps.taps": {"_SERIAL": (0, 0), "_SCRATCH": (1 << 8, 1 << 20)},
    "convmat.engines._winograd.winograd": {
        "_CHANNELS": (1, 8), "_SERIAL": (0, 0), "_PIECES": (1, 9), "_CACHE": (1, 1 << 17), "_RESULTS": (1, 64),
        "_SCRATCH": (1 << 8, 1 << 20), "_WIDEST": (2, 3),
    },
    "convmat.engines._gemm": {"BLOCK": (1, 1 << 13), "SERIAL": (0, 1 << 10)},
    "convmat.engines._fft.tiles": {
        "_CACHED": (1, 1 << 14), "_TILE": (1, 1 << 16), "_TOGETHER": (1, 1 << 16), "_MANY": (0, 12),
        "_SERIAL": (0, 1 << 10), "_CALL": (0, 7500),
    },
    "convmat.engines._csr.csr": {"_SERIAL": (1, 1 << 10), "_COMPILED": (0, 1 << 10), "_SECONDS": (0, 1)},
    "convmat.engines._sums": {"SINGLE": (1, 9), "DOUBLE": (1, 9), "_LARGE": (0, 100)},
    "convmat._runtime.parallel": {"_EACH": (1, 5), "_RATE": (1, 1 << 40), "_SOON": (1, 100)},
    "convmat.engines._separable": {"_BETWEEN": (1, 1 << 10)},
    "convmat.matrices._pattern": {
        "_BLOCK": (1, 200), "_LINE": (1, 400), "_TABLE": (1, 800), "_FRACTION": (1, 20), "_KEPT": (0, 1 << 14),
    },
    "convmat.matrices._writer": {
        "_CHUNK": (1, 4000), "_BUFFER": (1, 16), "_SMALL": (0, 64), "_SERIAL": (1, 200), "_SOON": (50, 5000),
    },
}  # fmt: skip
UNITS = {"_BUFFER": 16}  # what a threshold has to be a multiple of


@dataclass(frozen=True)
class Case:
    """A kernel's shape, an input's shape, options, and how they are used."""

    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    outputs: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"
    outer_product: bool = False
    flip: bool = False
    transposed: bool = False
    dtype: str = "float64"
    x_dtype: str = "float64"
    batch: tuple[int, ...] = ()
    layout: str = "C"
    workers: int = 1
    format: str = "csr"
    rows: tuple[float, float] = (0.0, 1.0)
    seed: tuple[int, int] = (0, 0)
    thresholds: dict[str, int] = field(default_factory=dict)

    @property
    def has_channels(self):
        return len(self.kernel_shape) > len(self.stride)

    @property
    def options(self):
        """The options of a convolution, as keyword arguments."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: value for name, value in vars(self).items() if name in names}

    @property
    def output_shape(self):
        """The shape of the convolution's output."""
        return (*self.kernel_shape[: int(self.has_channels)], *self.outputs)

    @property
    def all_outputs(self):
        """How many outputs fit on each axis."""
        n = len(self.stride)
        sizes = zip(
            self.input_shape[-n:], self.kernel_shape[-n:], self.stride, self.padding, self.dilation, strict=True
        )
        return tuple((m + a + b - d * (k - 1) - 1) // s + 1 for m, k, s, (a, b), d in sizes)

    @property
    def truncated(self):
        """Whether only the first outputs are kept, which a transposed convolution alone can ask for."""
        return self.outputs != self.all_outputs

    def geometry(self):
        """Return what convmat makes of it."""
        return ConvolutionGeometry.of_transposed(
            self.kernel_shape, self.output_shape, output_shape=self.input_shape, **self.options
        )

    def is_valid(self):
        """Tell whether there is such a convolution."""
        try:
            return self.geometry() is not None
        except ValueError:
            return False

    def fields(self):
        """Return all that it was made from."""
        return asdict(self)


class Numbers:
    """Random numbers, drawn many at a time: one at a time they would take as long as what is tested."""

    def __init__(self, seed, number):
        self.generator = np.random.default_rng([seed, number])
        self._uniform = iter(())

    def uniform(self):
        """Return a number from 0 to 1."""
        for value in self._uniform:
            return value
        self._uniform = iter(self.generator.random(128).tolist())
        return next(self._uniform)

    def integer(self, low, high):
        """Return an integer from `low` to `high`, inclusive."""
        return low + int(self.uniform() * (high - low + 1)) if high > low else low

    def spread(self, low, high):
        """Return an integer from `low` to `high`, small ones more often."""
        return low + int((high - low + 1) ** self.uniform()) - 1 if high > low else low

    def one_of(self, values):
        """Return one of the values."""
        return values[self.integer(0, len(values) - 1)]

    def chance(self, share):
        """Return True in so many of cases."""
        return self.uniform() < share


def draw(seed, number):
    """Return case `number` of a run: it depends on this and on the seed alone."""
    numbers = Numbers(seed, number)
    family = numbers.one_of(FAMILIES)
    while True:
        drawn = family(numbers)
        case = drawn and Case(**{**drawn, **_use(numbers, drawn)}, seed=(seed, number))
        if case and _is_small(case):
            return case


def _is_small(case):
    """Tell whether there is such a convolution, and its oracle takes little time."""
    n = len(case.stride)
    outputs, inputs, taps = prod(case.output_shape), prod(case.input_shape), prod(case.kernel_shape[-n:])
    inner = case.kernel_shape[1] if case.has_channels else 1
    return (
        max(outputs, inputs) * max(1, prod(case.batch)) <= NUMBERS
        and outputs * inner * taps <= 4 * ENTRIES
        and all(sum(pair) <= 10**6 for pair in case.padding)
        and case.is_valid()
        and case.geometry().nnz <= ENTRIES
    )


def _use(numbers, drawn):
    """Return how a convolution is used."""
    dtype = drawn.get("dtype") or numbers.one_of(DTYPES)
    if dtype in ("int8", "uint8") and 3 * prod(drawn["kernel_shape"][-len(drawn["stride"]) :]) > 127:
        dtype = "int16"  # in which the sum of taps that read one source fits
    same = drawn.get("outer_product") or numbers.chance(0.7)
    usual = numbers.chance(0.4)
    # A quarter of the thresholds at their own values: each may hide what another one would show.
    thresholds = {
        f"{module}.{name}": UNITS.get(name, 1) * numbers.spread(*limits)
        for module, names in THRESHOLDS.items()
        for name, limits in names.items()
        if not usual and numbers.chance(0.75)
    }
    return {
        "dtype": dtype,
        "x_dtype": dtype if same else numbers.one_of(DTYPES),
        "flip": numbers.chance(0.3),
        "transposed": numbers.chance(0.5),
        "batch": numbers.one_of([(), (), (), (1,), (2,), (3,), (5,), (9,), (2, 3), (0,)]),
        "layout": numbers.one_of(LAYOUTS),
        "workers": numbers.integer(1, 3),
        "format": numbers.one_of(FORMATS),
        "rows": tuple(sorted((numbers.uniform(), numbers.uniform()))),
        "thresholds": thresholds,
    }


def _axis(numbers, mode, most_size, most_taps, most_step, wide=False):
    """Return size, taps, stride, dilation, (before, after) and outputs of an axis, or None if it has no output."""
    size, taps = numbers.spread(1, most_size), numbers.spread(1, most_taps)
    stride = numbers.spread(1, numbers.one_of([1, 3, most_step, size + 2]))
    dilation = numbers.spread(1, numbers.one_of([1, 3, most_step, 2 * size + 2]))
    if wide and numbers.chance(0.5):  # where one number ends at another's multiple, more or less
        stride = numbers.one_of([1, 1, 1, stride])
        dilation = max(1, numbers.one_of([size, 2 * size, size // 2, size - 1]) + numbers.integer(-2, 2))
    reach = dilation * (taps - 1)
    limit = {"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, reach + size + 3)
    around = min(limit, numbers.one_of([0, 2, reach // 2, reach, limit]))
    before, after = numbers.integer(0, around), numbers.integer(0, around)
    match numbers.integer(0, 5):
        case 0:
            before = after = around
        case 1:
            before, after = min(limit, reach // 2), min(limit, reach - reach // 2)
        case 2 | 3 if reach:  # just what the kernel needs, somewhere
            least = max(0, reach - limit)
            before = numbers.integer(least, max(least, min(limit, reach, numbers.one_of([size, reach]))))
            after = min(limit, reach - before)
    room = size + before + after - reach - 1
    if room < 0:
        return None
    outputs = room // stride + 1
    if dilation > stride and numbers.chance(0.25):  # of_transposed keeps the first outputs
        dropped = numbers.integer(0, (dilation - 1 - room % stride) // stride) if dilation > room % stride else 0
        outputs = max(1, outputs - dropped)
    return size, taps, stride, dilation, (before, after), outputs


def _axes(numbers, mode, count, *limits, wide=()):
    """Return the options of several axes, or None."""
    axes = [_axis(numbers, mode, *limits) for _ in range(count - bool(wide))]
    if wide:
        axes.insert(numbers.integer(0, len(axes)), _axis(numbers, mode, *wide, True))
    if None in axes:
        return None
    names = ("size", "taps", "stride", "dilation", "padding", "outputs")
    return dict(zip(names, zip(*axes, strict=True), strict=True))


def _case(axes, mode, outer=0, inner=0, groups=1, **others):
    """Return a case's arguments; with no channels if `outer` is 0."""
    if axes is None:
        return None
    size, taps = axes.pop("size"), axes.pop("taps")
    kernel = (outer * groups, inner, *taps) if outer else taps
    shape = (inner * groups, *size) if outer else size
    return {**axes, "kernel_shape": kernel, "input_shape": shape, "groups": groups, "padding_mode": mode, **others}


def _mode(numbers):
    return "zeros" if numbers.chance(0.5) else numbers.one_of(PADDING_MODES)


def _plain(numbers):
    """A convolution of one to five axes without channels."""
    mode, count = _mode(numbers), numbers.one_of([1, 2, 2, 3, 3, 4, 5])
    most = {1: 300, 2: 40, 3: 12, 4: 6, 5: 4}[count]
    return _case(_axes(numbers, mode, count, most, {1: 40, 2: 9}.get(count, 4), 6), mode)


def _layer(numbers):
    """A few channels in each of several groups, or depthwise."""
    mode, count = _mode(numbers), numbers.one_of([1, 2, 2, 2, 3, 4])
    most = {1: 100, 2: 20, 3: 8, 4: 4}[count]
    groups, outer, inner = numbers.spread(1, 5), numbers.spread(1, 9), numbers.spread(1, 5)
    if numbers.chance(0.3):
        groups, outer, inner = numbers.integer(2, 9), numbers.one_of([1, 1, 2]), 1
    return _case(_axes(numbers, mode, count, most, {1: 9, 2: 5}.get(count, 3), 4), mode, outer, inner, groups)


def _wide(numbers):
    """Long on one axis, with dilation, stride and padding up to beyond the input."""
    mode, count = _mode(numbers), numbers.one_of([1, 1, 2, 2, 3])
    long = numbers.one_of([100, 400, 3000])
    axes = _axes(numbers, mode, count, {1: 1, 2: 8, 3: 3}[count], 3, 3, wide=(long, numbers.one_of([3, 9]), 9))
    channels = (numbers.spread(1, 9), numbers.spread(1, 4)) if numbers.chance(0.4) else ()
    return _case(axes, mode, *channels)


def _many_channels(numbers):
    """So many channels that spectra are multiplied as matrices."""
    mode, count = _mode(numbers), numbers.integer(1, 2)
    axes = _axes(numbers, mode, count, {1: 12, 2: 4}[count], 3, 2)
    return _case(axes, mode, numbers.integer(1, 40), numbers.integer(1, 40), numbers.integer(1, 2))


def _three_by_three(numbers):
    """A layer for the engine `winograd`."""
    mode = _mode(numbers)
    sizes = [numbers.spread(1, 12) for _ in range(2)]
    limits = [{"reflect": size - 1, "circular": size, "symmetric": size}.get(mode, 5) for size in sizes]
    padding = tuple((numbers.spread(0, min(limit, 5)), numbers.spread(0, min(limit, 5))) for limit in limits)
    axes = {
        "size": tuple(sizes), "taps": (3, 3), "stride": (1, 1), "dilation": (1, 1), "padding": padding,
        "outputs": tuple(size + sum(pair) - 2 for size, pair in zip(sizes, padding, strict=True)),
    }  # fmt: skip
    if min(axes["outputs"]) < 1:
        return None
    low = numbers.one_of([1, 8])
    outer, inner = (numbers.integer(low, low + 12) for _ in range(2))
    dtype = numbers.one_of(["float32", "float64"])
    return _case(axes, mode, outer, inner, numbers.one_of([1, 1, 2]), dtype=dtype)


def _outer_product(numbers):
    """A kernel for the engine `separable`."""
    mode, count = _mode(numbers), numbers.one_of([2, 2, 3, 3, 4])
    axes = _axes(numbers, mode, count, {2: 25, 3: 10, 4: 5}[count], {2: 7, 3: 4, 4: 3}[count], 4)
    channels = (1, 1, numbers.integer(1, 4)) if numbers.chance(0.5) else ()
    dtype = numbers.one_of(["float32", "float64", "complex64", "complex128"])
    return _case(axes, mode, *channels, outer_product=True, dtype=dtype)


FAMILIES = (
    *(_plain, _plain, _plain, _layer, _layer, _layer, _wide, _wide, _wide, _wide),
    *(_many_channels, _three_by_three, _three_by_three, _outer_product, _outer_product),
)


def module_of(threshold):
    """Return the module and the name of a threshold."""
    module, _, name = threshold.rpartition(".")
    return import_module(module), name
