"""Bounds hold: of intervals in exact arithmetic, of norms for the matrices themselves."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from convmat import Convolution
from convmat.geometry import PADDING_MODES
from convmat.networks import Network
from convmat.networks import _elementary as elementary
from convmat.networks._builder import Builder
from convmat.networks._functions import Interval
from convmat.networks._groups import LogSoftmax, Softmax
from convmat.networks._norms import map_norm_bound
from tests.networks.graphs import GRAPHS, built

RNG = np.random.default_rng(0)
FUNCTIONS = {
    "relu": elementary.relu,
    "leaky": elementary.leaky_relu(0.1),
    "falling": elementary.leaky_relu(-0.5),
    "prelu": elementary.prelu(np.array([-0.3, 0.2, 2.0, 0.0])),
    "clip": elementary.clip(-0.5, 1.5),
    "hard_sigmoid": elementary.hard_sigmoid(),
    "hard_swish": elementary.hard_swish,
    "absolute": elementary.absolute,
    "sigmoid": elementary.sigmoid,
    "log_sigmoid": elementary.log_sigmoid,
    "tanh": elementary.tanh,
    "silu": elementary.silu,
    "gelu": elementary.gelu(),
    "gelu by tanh": elementary.gelu("tanh"),
    "softplus": elementary.softplus(2.0),
    "elu": elementary.elu(0.7),
    "elu that falls": elementary.elu(-0.7),
    "selu": elementary.selu,
    "mish": elementary.mish,
    "softsign": elementary.softsign,
    "exp": elementary.exp,
    "erf": elementary.error_function,
    "square": elementary.power(2.0),
    "cube": elementary.power(3.0),
}
POSITIVE = {
    "log": elementary.log,
    "sqrt": elementary.sqrt,
    "reciprocal": elementary.reciprocal,
    "rsqrt": elementary.reciprocal_sqrt,
    "power": elementary.power(1.7),
    "negative power": elementary.power(-2.0),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width", [0.0, 1e-9, 0.1, 2.0])
def test_outputs_lie_within_bounds(name, width):
    net = built(name)
    middle = RNG.standard_normal(net.input_shape)
    low, high = net.bounds(middle - width, middle + width)
    assert (low <= high).all()
    signs = RNG.choice([-1.0, 1.0], (200, *net.input_shape)) * RNG.choice(
        [0.3, 1.0], (200, *(1 for _ in net.input_shape))
    )
    values = net(middle + width * signs)
    slack = 1e-12 * abs(values).max()  # the values are rounded themselves
    assert (values >= low - slack).all()
    assert (values <= high + slack).all()
    if width <= 1e-9:
        assert (high - low).max() < 1e-4 * abs(values).max()


def test_bounds_hold_in_exact_arithmetic():
    """The middle of an interval of one point, as fractions."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        builder = Builder((1, 2, 5), np.float64)
        x = builder.convolve(
            "a", builder.input, rng.standard_normal((3, 2, 3)) * 10.0 ** rng.integers(-8, 8), padding=1
        )
        x = builder.shift("b", x, rng.standard_normal((1, 3, 1)))
        x = builder.along("c", "Gemm", x, {2: rng.standard_normal((4, 5)), 1: rng.standard_normal((2, 3))})
        net = Network(builder.stages, builder.input, x, np.float64, ((2, 5), (2, 4)))
        point = rng.standard_normal((2, 5))
        low, high = net.bounds(point, point)
        values = [Fraction(float(v)) for v in point.ravel()]
        for stage in net.stages:
            rows = stage.maps[0].tocsr()
            offset = np.zeros(stage.output_shape) if stage.offset is None else stage.offset
            values = [
                sum(
                    (Fraction(float(w)) * values[c] for w, c in zip(row.data, row.indices, strict=True)),
                    Fraction(float(b)),
                )
                for row, b in zip(
                    map(rows.__getitem__, [[n] for n in range(rows.shape[0])]), offset.ravel(), strict=True
                )
            ]
        for value, least, most in zip(values, low.ravel(), high.ravel(), strict=True):
            assert Fraction(float(least)) <= value <= Fraction(float(most))
        assert (high - low).max() < 1e-10 * abs(high).max()


@pytest.mark.parametrize("name", [*FUNCTIONS, *POSITIVE])
def test_functions_have_their_slopes_and_stay_within_bounds(name):
    make = {**FUNCTIONS, **POSITIVE}[name]
    x = RNG.uniform(0.05, 4, (1, 4)) if name in POSITIVE else RNG.uniform(-4, 4, (1, 4))
    for _ in range(50):
        width = RNG.uniform(0, 3)
        low, high = (np.maximum(x - width, 1e-3) if name in POSITIVE else x - width), x + width
        function = make((1, 4))
        found = function.bounds(Interval(low, high))
        points = np.clip(low + (high - low) * np.linspace(0, 1, 101)[:, None, None], low, high)
        values = function.value(points)
        assert (values >= found.low).all()
        assert (values <= found.high).all()
        assert (found.high - found.low <= 1.1 * (values.max(axis=0) - values.min(axis=0)) + 1e-2).all()
        slopes = function.derivative(x)[0].factors
        step = 1e-6
        differences = (function.value((x + step)[None]) - function.value((x - step)[None]))[0] / (2 * step)
        np.testing.assert_allclose(slopes, differences, rtol=1e-4, atol=1e-6)
        least, most = function.slope_range
        assert (differences >= least - 1e-6).all()
        assert (differences <= most + 1e-6).all()
        x = RNG.uniform(0.05, 4, (1, 4)) if name in POSITIVE else RNG.uniform(-4, 4, (1, 4))


@pytest.mark.parametrize("name", GRAPHS)
def test_norms_are_bounded(name):
    net = built(name)
    x = RNG.standard_normal(net.input_shape)
    for stage in net.stages:
        for each in stage.maps:
            norm = np.linalg.norm(each.tocsr().toarray(), 2)
            assert norm <= map_norm_bound(each)
    bound, closer = net.lipschitz_bound(), net.lipschitz_bound(pairs=True)
    for _ in range(5):
        assert np.linalg.norm(net.at(3 * RNG.standard_normal(x.shape)).matrix.tocsr().toarray(), 2) <= closer
    assert closer <= bound
    if name in ("narrow", "deep", "circular"):
        assert closer < 0.99 * bound
    assert np.isfinite(bound) == (name not in ("smooth", "attention"))


def test_the_report_counts_and_traces_back():
    net = built("layers")
    report = net.report(norms=True)
    assert [row.op for row in report.rows] == [stage.op for stage in net.stages]
    for row, stage in zip(report.rows, net.stages, strict=True):
        assert row.nonzeros == sum(each.tocsr().nnz for each in stage.maps)
        assert row.norm is not None
        assert row.output_shape == stage.output_shape
    assert report.rows[0].receptive_field == (3, 3)
    assert report.rows[2].receptive_field == (4, 5)
    assert report.rows[-1].receptive_field is None
    assert f"{report.nonzeros:,}" in str(report)
    assert "norm at most" in str(report)
    assert "norm at most" not in str(net.report())
    assert report._repr_html_().count("<tr>") == len(net.stages) + 2


def test_errors():
    net = built("layers")
    with pytest.raises(ValueError, match="low must be at most high everywhere"):
        net.bounds(1.0, 0.0)
    builder = Builder((1, 3), np.float64)
    target = builder.elementwise("log", builder.input, elementary.log)
    net = Network(builder.stages, builder.input, target, np.float64, ((3,), (3,)))
    with pytest.raises(ValueError, match="Log must have inputs from 0 to inf, got -1"):
        net.bounds(-1.0, 1.0)
    builder = Builder((1, 3), np.float64)
    target = builder.divide("div", np.ones((1, 3)), builder.input)
    net = Network(builder.stages, builder.input, target, np.float64, ((3,), (3,)))
    with pytest.raises(ValueError, match="Reciprocal must have inputs that cannot be 0"):
        net.bounds(-1.0, 1.0)
    builder = Builder((1, 3), np.float64)
    target = builder.divide("div", builder.input, builder.elementwise("abs", builder.input, elementary.absolute))
    net = Network(builder.stages, builder.input, target, np.float64, ((3,), (3,)))
    with pytest.raises(ValueError, match="Div must have a divisor that cannot be zero"):
        net.bounds(-1.0, 1.0)


# Rounding: what is bounded is the exact value, which Python's decimal numbers give


def exactly(value):
    return Decimal(float(value))


def exact_tanh_gelu(x):
    scale = (Decimal(2) / PI).sqrt()
    inner = scale * (x + exactly(0.044715) * x**3)
    powers = (2 * inner).exp()
    return x / 2 * (1 + (powers - 1) / (powers + 1))


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
EXACT = {
    "gelu by tanh": exact_tanh_gelu,
    "hard_sigmoid": lambda x: min(max(exactly(1 / 6) * x + exactly(0.5), Decimal(0)), Decimal(1)),
    "hard_swish": lambda x: x * min(max(x / 6 + exactly(0.5), Decimal(0)), Decimal(1)),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "silu": lambda x: x / (1 + (-x).exp()),
    "exp": lambda x: x.exp(),
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
    "elu": lambda x: x if x > 0 else exactly(0.7) * (x.exp() - 1),
}


@pytest.mark.parametrize("name", EXACT)
def test_bounds_of_functions_hold_the_exact_value(name):
    points = np.concatenate(
        [RNG.uniform(-8, 8, 400), -3 + 10.0 ** RNG.uniform(-15, 0, 200), [-30.0, -2.9999999999, 0.0]]
    )
    found = FUNCTIONS[name](points.shape).bounds(Interval(points, points))
    with localcontext() as context:
        context.prec = 60
        for x, low, high in zip(points, *found, strict=True):
            assert exactly(low) <= EXACT[name](exactly(x)) <= exactly(high), x


@pytest.mark.parametrize("kind", [Softmax, LogSoftmax])
def test_bounds_of_shares_hold_the_exact_value(kind):
    for size in (1, 2, 3, 7):
        for scale in (1e-3, 1.0, 40.0, 150.0):
            x = RNG.standard_normal(size) * scale
            found = kind((size,), 0).bounds(Interval(x, x))
            with localcontext() as context:
                context.prec = 300
                powers = [exactly(each).exp() for each in x]
                shares = [power / sum(powers) for power in powers]
                exact = shares if kind is Softmax else [share.ln() for share in shares]
                for value, low, high in zip(exact, *found, strict=True):
                    assert exactly(low) <= value <= exactly(high)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_all_products_that_are_summed_are_counted(mode, is_transposed):
    """Where a border reads a position through several taps, each of them is a product that is rounded."""
    kernel, padding = np.ones((2, 2, 3)), ((2, 2),) if mode != "zeros" else ((1, 1),)
    builder = Builder((1, 2, 3), np.float64)
    options = {"padding": padding, "padding_mode": mode, "is_transposed": is_transposed}
    if is_transposed:
        options["output_shape"] = (5 - sum(padding[0]) if mode == "zeros" else 3,)
        builder = Builder(
            (
                1,
                2,
                Convolution(
                    kernel, (2, *options["output_shape"]), **{k: options[k] for k in ("padding", "padding_mode")}
                ).output_shape[1],
            ),
            np.float64,
        )
    value = builder.convolve("conv", builder.input, kernel, **options)
    each = builder.stages[0].maps[0]
    sums = each.apply(np.ones(each.input_shape))  # of ones: how many products there are
    assert each.terms >= sums.max()
    assert value.shape == each.output_shape
