"""A difference made small, and written as a few lines that show it."""

from dataclasses import replace
from time import monotonic

import numpy as np

from tests.fuzz.checking import check, kernel_of

_SECONDS = 20  # for making one difference small


def difference(case, name):
    """Return what one check of a case finds, or None."""
    return dict(check(case, () if name == "matrices" else (name,)))[name]


def smallest(case, name):
    """Return a case that fails the same check, and of which nothing can be taken away."""
    end, found = monotonic() + _SECONDS, True
    while found:
        found = False
        for smaller in _smaller(case):
            if monotonic() > end:
                return case
            if smaller != case and smaller.is_valid() and difference(smaller, name):
                case, found = smaller, True
                break
    return case


def _smaller(case):
    """Yield cases that are simpler in one respect."""
    for change in (
        {"thresholds": {}}, {"batch": ()}, {"layout": "C"}, {"workers": 1}, {"flip": False}, {"x_dtype": case.dtype},
        {"format": "csr"}, {"rows": (0.0, 1.0)}, {"transposed": False}, {"outputs": case.all_outputs},
        {"dtype": "float64", "x_dtype": "float64"}, {"padding_mode": "zeros"}, {"outer_product": False},
    ):  # fmt: skip
        yield replace(case, **change)
    for threshold in case.thresholds:
        yield replace(case, thresholds={name: case.thresholds[name] for name in case.thresholds if name != threshold})
    if case.has_channels:
        yield from _fewer_channels(case)
    for axis in range(len(case.stride)):
        yield from _smaller_axis(case, axis)


def _fewer_channels(case):
    outer, inner = case.kernel_shape[0] // case.groups, case.kernel_shape[1]
    yield replace(case, kernel_shape=case.kernel_shape[2:], input_shape=case.input_shape[1:], groups=1)
    fewer = [(o, inner, case.groups) for o in (1, outer // 2, outer - 1)]
    fewer += [(outer, i, case.groups) for i in (1, inner // 2, inner - 1)] + [(outer, inner, 1)]
    for numbers in fewer:
        if min(numbers) > 0:
            outer, inner, groups = numbers
            kernel, shape = (outer * groups, inner, *case.kernel_shape[2:]), (inner * groups, *case.input_shape[1:])
            yield replace(case, kernel_shape=kernel, input_shape=shape, groups=groups)


def _smaller_axis(case, axis):
    n = len(case.stride)
    kept = not case.truncated
    leading = case.kernel_shape[:-n], case.input_shape[:-n]
    names = ("taps", "size", "stride", "dilation", "padding", "outputs")
    axes = [list(column) for column in zip(
        case.kernel_shape[-n:], case.input_shape[-n:], case.stride, case.dilation, case.padding, case.outputs,
        strict=True,
    )]  # fmt: skip

    def built(changed):
        taps, size, stride, dilation, padding, outputs = map(tuple, zip(*changed, strict=True))
        other = replace(
            case, kernel_shape=leading[0] + taps, input_shape=leading[1] + size, stride=stride, dilation=dilation,
            padding=padding, outputs=outputs,
        )  # fmt: skip
        most = other.all_outputs
        return replace(other, outputs=most if kept else tuple(map(min, most, outputs)))

    if n > 1:
        yield built(axes[:axis] + axes[axis + 1 :])
    for place, name in enumerate(names[:-1]):
        value = axes[axis][place]
        if name == "padding":
            before, after = value
            changes = [(0, 0), (0, after), (before, 0), (before // 2, after), (before, after // 2),
                       (max(0, before - 1), after), (before, max(0, after - 1))]  # fmt: skip
        else:
            changes = [number for number in (1, value // 2, value - 1) if 0 < number < value]
        for change in changes:
            yield built([[*a[:place], change, *a[place + 1 :]] if i == axis else a for i, a in enumerate(axes)])


def reproduction(case, name):
    """Return the lines that show a difference."""
    imports, options = [], {**case.options, "flip": case.flip}
    for threshold, value in case.thresholds.items():
        module, _, attribute = threshold.rpartition(".")
        package, _, short = module.rpartition(".")
        imports.append(f"from {package} import {short}; {short}.{attribute} = {value}")

    def given(array):
        return array if case.layout == "C" else f"laid_out({array}.copy(), {case.layout!r})"

    transposed = case.truncated or case.transposed
    kind = "TransposedConvolution" if transposed else "Convolution"
    shape = f"{case.output_shape}, output_shape={case.input_shape}" if transposed else str(case.input_shape)
    engine = {} if name in ("matrices", "auto") else {"engine": name}
    arguments = "".join(f", {key}={value!r}" for key, value in {**options, "workers": case.workers, **engine}.items())
    flipped = f"np.flip(kernel, {tuple(range(-len(case.stride), 0))})" if case.flip else "kernel"
    oracle = "".join(f", {key}={value!r}" for key, value in {**case.options, "outputs": case.outputs}.items())
    lines = [
        "import numpy as np",
        f"from convmat import {kind}",
        "from tests import reference",
        *imports,
        *(["from tests.fuzz.checking import laid_out"] if case.layout != "C" else []),
        _values("kernel", kernel_of(case), case, 0),
        f"W = reference.sparse_matrix({flipped}, {case.input_shape}{oracle})",
        f"A = {kind}({given('kernel')}, {shape}{arguments})" + (".T" if transposed else ""),
    ]
    if name == "matrices":
        return "\n".join([*lines, "print(abs(A.tocsr() - W).max(), abs(A.T.tocsr() - W.T).max())"])
    forward = f"A.apply({given('x')}) - (W @ x.reshape(-1, W.shape[1]).T).T.reshape(y.shape)"
    transpose = f"A.T.apply({given('y')}) - (W.T @ y.reshape(-1, W.shape[0]).T).T.reshape(x.shape)"
    return "\n".join(
        [
            *lines,
            _values("x", (*case.batch, *case.input_shape), case, 1),
            _values("y", (*case.batch, *case.output_shape), case, 2),
            f"print(np.abs({forward}).max(initial=0))",
            f"print(np.abs({transpose}).max(initial=0))",
        ]
    )


def _values(name, value, case, which):
    """Return the line that makes an array of a case again; `value` is its shape, or itself."""
    shape, dtype = (value.shape, case.dtype) if which == 0 else (value, case.x_dtype)
    if which == 0 and case.outer_product:
        drawn = f"np.array({value.tolist()})"
    else:
        drawn = {
            "u": f"rng.integers(0, 4, {shape})",
            "i": f"rng.integers(-3, 4, {shape})",
            "f": f"rng.standard_normal({shape})",
            "c": f"(rng.standard_normal({shape}) + 1j * rng.standard_normal({shape}))",
        }[np.dtype(dtype).kind]
    return f"rng = np.random.default_rng({(*case.seed, which)}); {name} = {drawn}.astype({dtype!r})"
