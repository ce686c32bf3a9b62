"""The answer in sentences. Each sentence is there only if the measured numbers support it.

"Is it efficient to use matrix multiplication to implement convolutions? Why?" is an exercise of the textbook's section.
There are two matrix multiplications: W times the image, and, after im2col, the kernel times the image's windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from math import prod
from statistics import median

from convmat._messages import scaled
from convmat.commands.exercise.cases import Case
from convmat.commands.exercise.measure import Comparison, Timing
from convmat.commands.exercise.tables import two_digits
from convmat.commands.exercise.ways import WAYS

QUESTION = "Is it efficient to use matrix multiplication to implement convolutions? Why?"
_AS_FAST = 1.1  # times the fastest: below this, the next run may say the opposite
_PERCENT = f"{_AS_FAST - 1:.0%}"
_RIVALS = {
    "csr": "the stored W",
    "im2col": "im2col",
    "compiled": "the compiled loops",
    "auto": 'convmat with engine="auto"',
}
_MANY = 16  # output channels of a group from which im2col uses its copies often


def paragraphs(comparison: Comparison) -> list[str]:
    """Return the answer's paragraphs.

    Parameters
    ----------
    comparison : Comparison
        What was measured.

    Returns
    -------
    list of str
        The verdict first, then the reasons. A paragraph about something that was not measured is missing.
    """
    makers = (verdict, stored_matrix, building, dense_matrix, loops, copied_windows, spectra, libraries, transposed)
    return [" ".join(sentences) for maker in makers if (sentences := maker(comparison))]


def verdict(comparison: Comparison) -> list[str]:
    """Say how the two matrix multiplications stand against the fastest way."""
    sentences = []
    ratios = _ratios(comparison, "csr")
    if ratios:
        behind, level = _split(ratios)
        if not level:
            sentences.append(
                f"Multiplying by W, stored as a sparse matrix, is not efficient: {_all(behind)} another way is faster, "
                f"{_range(behind.values())}."
            )
        elif behind:
            sentences.append(
                f"Multiplying by W, stored as a sparse matrix, is efficient only here and there: it is the fastest way, or "
                f"within {_PERCENT} of it, for {_names(level)}; in the other {len(behind)} another way is faster, "
                f"{_range(behind.values())}."
            )
        else:
            sentences.append(
                f"Multiplying by W, stored as a sparse matrix, is efficient here: {_all(level)} it is the fastest way, or "
                f"within {_PERCENT} of it."
            )
    ratios = _ratios(comparison, "im2col")
    groups = {
        "with many channels": {case: r for case, r in ratios.items() if _reused(case) >= _MANY},
        "with one channel": {case: r for case, r in ratios.items() if case.single},
    }
    clauses = []
    for name, group in groups.items():
        if group:
            behind, level = _split(group)
            where = f"{name} ({_names(group) if len(group) < 5 else f'{len(group)} cases'})"
            if not behind:
                clauses.append(f"{where} it is the fastest way, or within {_PERCENT} of it")
            else:
                clauses.append(f"{where} it takes {_range(group.values())} as long as the fastest")
    if clauses:
        sentences.append(
            f"As for the other matrix multiplication, of the kernel by copied windows (im2col): {'; '.join(clauses)}."
        )
    return sentences


def stored_matrix(comparison: Comparison) -> list[str]:
    """Say why W costs what it costs: bytes."""
    found = _timings(comparison, "csr")
    if not found:
        return []
    timing = max(found, key=lambda t: t.work.bytes)
    case, work, top = timing.case, timing.work, comparison.ceilings
    index = case.geometry.index_dtype.itemsize
    per_nonzero = case.itemsize + index
    streaming, arithmetic = work.bytes / top.copy, work.flops / top.gemm
    share = timing.bandwidth / top.copy
    sentences = [
        (
            f"Why? W holds every number of the kernel again for every output, each beside its column: {per_nonzero} bytes "
            f"for 2 operations. For {case.name} ({case}) a product streams {scaled(work.bytes, 'B')} for "
            f"{scaled(work.flops, 'FLOP')}. At the rate at which this machine copies memory, {scaled(top.copy, 'B/s')}, "
            f"the bytes alone take {scaled(streaming, 's')}; at the rate of its BLAS, {scaled(top.gemm, 'FLOP/s')}, the "
            f"arithmetic would take {scaled(arithmetic, 's')}."
        ),
        f"It took {scaled(timing.product, 's')}: "
        + (
            "the bytes set the time."
            if share >= 0.5 and streaming > arithmetic
            else f"the bytes account for {share:.0%} of it, so it is not they alone."
            if streaming > arithmetic
            else "here the arithmetic counts for more than the bytes."
        ),
    ]
    fastest = min(comparison.of(case).values(), key=lambda t: t.product)
    needed = (sum(case.geometry.shape) + prod(case.kernel_shape)) * case.itemsize
    if fastest.way != "csr":
        sentences.append(
            f"The kernel, the input and the output together are {scaled(needed, 'B')}; the fastest way, "
            f"{WAYS[fastest.way].title}, took {scaled(fastest.product, 's')}."
        )
    return sentences


def building(comparison: Comparison) -> list[str]:
    """Say what building W costs, and whether that is ever paid back."""
    stored = [t for t in _timings(comparison, "csr") if t.build is not None]
    if not stored:
        return []
    builds = [t.build / t.product for t in stored if t.build is not None]
    sentences = [f"Building W, its pattern being known, takes as long as {_range(builds, unit='products with it')}."]
    anew = [
        (each, other) for each in _timings(comparison, "csr anew") if (other := comparison.find(each.case.name, "csr"))
    ]
    if anew:
        slower = [each.product / other.product for each, other in anew]
        sentences.append(f"A product that builds W first takes {_range(slower)} as long as one with a stored W.")
    return sentences


def dense_matrix(comparison: Comparison) -> list[str]:
    """Say what the zeros of W cost."""
    found = _timings(comparison, "dense")
    if not found:
        return []
    timing = max(found, key=lambda t: t.work.memory)
    case = timing.case
    sparse = comparison.find(case.name, "csr")
    if sparse is None:
        return []
    ratio = timing.product / sparse.product
    compared = f"takes {two_digits(ratio)} times as long" if ratio >= 1 else f"is {two_digits(1 / ratio)} times as fast"
    sentences = [
        (
            f"With its zeros, as a dense matrix, W of {case.name} takes {scaled(timing.work.memory, 'B')} instead of "
            f"{scaled(sparse.work.memory, 'B')}, and a product {compared}."
        )
    ]
    refused = [case for case in comparison.cases if (case.name, "dense") in comparison.refusals and case.single]
    if refused:
        larger = min(refused, key=lambda case: prod(case.geometry.shape))
        dense = WAYS["dense"].work(larger).memory
        sentences.append(f"For {larger.name} it would take {scaled(dense, 'B')}.")
    return sentences


def loops(comparison: Comparison) -> list[str]:
    """Say what the interpreter costs for every window, and how fast the same loops are when compiled."""
    found = _timings(comparison, "loops")
    if not found:
        return []
    timing = max(found, key=lambda t: t.work.flops)
    case = timing.case
    windows = prod(case.geometry.output_shape) * case.geometry.in_channels
    sentences = [
        (
            f"The book's loops pay the interpreter for every window: {scaled(timing.product / windows, 's')} for each of "
            f"{windows:,} in {case.name}, whose {case.kernel_shape[2] * case.kernel_shape[3]} multiplications, and as many "
            f"additions, take {scaled(timing.work.flops / windows / comparison.ceilings.gemm, 's')} at the rate of BLAS."
        )
    ]
    compiled = comparison.find(case.name, "compiled")
    if compiled is not None:
        ratio = timing.product / compiled.product
        sentences.append(
            f"The same loops, compiled, are {two_digits(ratio)} times as fast."
            if ratio > 1
            else "Compiled, the same loops are not faster here."
        )
    large = max(_timings(comparison, "compiled"), key=lambda t: t.work.flops, default=None)
    if large is not None:
        csr = comparison.find(large.case.name, "csr")
        share = large.rate / comparison.ceilings.gemm
        beside = (
            ""
            if csr is None
            else f", and take {two_digits(large.product / csr.product)} times the time of the stored W"
        )
        sentences.append(
            f"They store nothing, but multiply number by number: on {large.case.name} they reach {share:.0%} of the rate of "
            f"BLAS{beside}."
        )
    return sentences


def copied_windows(comparison: Comparison) -> list[str]:
    """Say what im2col copies, and how often each copy is used."""
    found = [t for t in _timings(comparison, "im2col") if prod(t.case.kernel_shape[2:]) > 1]
    few = [t for t in found if t.case.single]
    many = [t for t in found if _reused(t.case) >= _MANY]
    if not found:
        return []
    timing = max(few or found, key=lambda t: t.work.memory)
    taps = prod(timing.case.kernel_shape[2:])
    sentences = [
        (
            f"im2col buys the speed of BLAS with a copy of every window: for {timing.case.name} {taps} times the image, "
            f"{scaled(timing.work.memory, 'B')}, written and read for {timing.work.intensity:.2g} operations a byte."
        )
    ]
    if many:
        other = max(many, key=lambda t: _reused(t.case))
        sentences.append(
            f"A copied number is used once for every channel that comes out: {_reused(other.case)} times for "
            f"{other.case.name}, which makes {other.work.intensity:.2g} operations a byte."
        )
        versus = [csr.product / t.product for t in many if (csr := comparison.find(t.case.name, "csr")) is not None]
        if versus:
            sentences.append(
                f"Where {_MANY} channels or more come out of a group, the stored W takes {_range(versus)} as long as im2col."
            )
    return sentences


def spectra(comparison: Comparison) -> list[str]:
    """Say from which kernel size spectra win, on one channel and the image size with the most kernel sizes."""
    ladder = _kernel_ladder(comparison)
    timings = {k: comparison.of(case) for k, case in ladder.items() if "fft" in comparison.of(case)}
    if len(timings) < 2:
        return []
    sizes = list(timings)
    least, most = sizes[0], sizes[-1]
    change = timings[most]["fft"].product / timings[least]["fft"].product
    image = " × ".join(map(str, ladder[most].input_shape[1:]))
    taps = (most / least) ** 2
    if change < 2:
        begin = "The Fourier transform hardly sees the kernel:"
    elif change < taps / 2:
        begin = "The Fourier transform grows less than the kernel:"
    else:
        begin = "The Fourier transform depends on the kernel here:"
    sentences = [
        (
            f"{begin} on {image} its product with a {most} × {most} kernel takes {two_digits(change)} times that with "
            f"{least} × {least}, for {two_digits(taps)} times the taps."
        )
    ]
    wins: dict[int | None, list[str]] = {}
    for rival, name in _RIVALS.items():
        if sum(rival in timings[k] for k in sizes) > 1:
            wins.setdefault(crossover(comparison, rival), []).append(name)
    clauses = [f"from {first} × {first} on it is faster than {_list(names)}" for first, names in wins.items() if first]
    if None in wins:
        clauses.append(f"at no kernel up to {most} × {most} is it faster than {_list(wins[None])}")
    if clauses:
        sentences.append(f"Of the kernel sizes {_list(map(str, sizes))}: {'; '.join(clauses)}.")
    return sentences


def libraries(comparison: Comparison) -> list[str]:
    """Say how the libraries compare: they choose among methods."""
    sentences = []
    for way, name in (("auto", 'convmat with engine="auto"'), ("torch", "PyTorch")):
        ratios = _ratios(comparison, way)
        if not ratios:
            continue
        behind, level = _split(ratios)
        if not behind:
            sentences.append(f"{name} is the fastest, or within {_PERCENT} of it, {_all(level)}.")
        elif level:
            sentences.append(
                f"{name} is the fastest, or within {_PERCENT} of it, in {len(level)} of {len(ratios)}; "
                f"in the other{'s' if len(behind) > 1 else ''} it takes {_range(behind.values())} as long as the fastest."
            )
        else:
            sentences.append(f"{name} takes {_range(behind.values())} as long as the fastest.")
    return sentences


def transposed(comparison: Comparison) -> list[str]:
    """Say whether the transposed product gives the same answer."""
    ratios = {}
    for case in comparison.cases:
        found = {way: t.transposed for way, t in comparison.of(case).items() if t.transposed is not None}
        if "csr" in found and len(found) > 1:
            ratios[case] = found["csr"] / min(found.values())
    if not ratios:
        return []
    behind, level = _split(ratios)
    if not behind:
        said = f"{_all(level)} it is the fastest way, or within {_PERCENT} of it"
    else:
        where = f"in {len(behind)} of {len(ratios)}" if level else _all(behind)
        said = f"{where} another way is faster, {_range(behind.values())}"
    return [f"Transposed convolution, as a product with Wᵀ: {said}."]


def left_out(comparison: Comparison) -> list[str]:
    """Return lines that say which ways were left out of which cases, and why."""
    lines = []
    for way in WAYS:
        reasons: dict[str, list[str]] = {}
        for (case, name), why in comparison.refusals.items():
            if name == way:
                reasons.setdefault(why, []).append(case)
        everywhere = {case for cases in reasons.values() for case in cases} >= {c.name for c in comparison.cases}
        if everywhere and len(reasons) == 1:
            lines.append(f"{way}: {next(iter(reasons))}")
        else:
            lines += [f"{way}, {', '.join(cases)}: {why}" for why, cases in reasons.items()]
    return lines


def crossover(comparison: Comparison, rival: str) -> int | None:
    """Return the kernel size from which spectra are faster than a way, at it and all larger sizes; None if there is none."""
    timings = {k: comparison.of(case) for k, case in _kernel_ladder(comparison).items()}
    shared = [k for k, found in timings.items() if rival in found and "fft" in found]
    return _first_win(shared, lambda k: timings[k][rival].product > timings[k]["fft"].product)


def _kernel_ladder(comparison: Comparison) -> dict[int, Case]:
    """Return the single-channel cases of the image size that has most kernel sizes, by kernel size."""
    sizes: dict[tuple[int, ...], dict[int, Case]] = {}
    for case in comparison.cases:
        if case.single and case.kernel_shape[2] == case.kernel_shape[3]:
            sizes.setdefault(case.input_shape, {})[case.kernel_shape[2]] = case
    ladder = max(sizes.values(), key=len, default={})
    return dict(sorted(ladder.items()))


def _first_win(sizes: Sequence[int], wins: Callable[[int], bool]) -> int | None:
    """Return the least size such that it and all larger sizes win."""
    won = list(takewhile(wins, sorted(sizes, reverse=True)))
    return won[-1] if won else None


def _timings(comparison: Comparison, way: str) -> list[Timing]:
    return [timing for timing in comparison.timings if timing.way == way]


def _ratios(comparison: Comparison, way: str) -> dict[Case, float]:
    """Return a way's time over that of the fastest way, in each case that has other ways."""
    ratios = {}
    for timing in _timings(comparison, way):
        others = comparison.of(timing.case)
        if len(others) > 1:
            ratios[timing.case] = timing.product / min(other.product for other in others.values())
    return ratios


def _split(ratios: dict[Case, float]) -> tuple[dict[Case, float], dict[Case, float]]:
    """Return the cases where a way is behind the fastest, and those where it is about as fast."""
    behind = {case: ratio for case, ratio in ratios.items() if ratio > _AS_FAST}
    return behind, {case: ratio for case, ratio in ratios.items() if ratio <= _AS_FAST}


def _reused(case: Case) -> int:
    """Return the output channels of a group: how often im2col uses each number that it copies."""
    return case.geometry.out_channels // case.geometry.groups


def _all(cases: Iterable[Case]) -> str:
    count = len(list(cases))
    return "in the one convolution measured" if count == 1 else f"in all {count} convolutions measured"


def _names(cases: Iterable[Case]) -> str:
    return _list(case.name for case in cases)


def _list(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _range(values: Iterable[float], unit: str = "times") -> str:
    """Return the smallest, largest and middle of some ratios in words."""
    ordered = sorted(values)
    low, high = two_digits(ordered[0]), two_digits(ordered[-1])
    if low == high:
        return f"{low} {unit}"
    if len(ordered) == 2:
        return f"{low} and {high} {unit}"
    return f"{low} to {high} {unit} (median {two_digits(median(ordered))})"
