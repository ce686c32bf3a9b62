"""Draws cases until the time is over, and prints what was computed and what differs; then the exit status is 1."""

import argparse
import os
import sys
import warnings
from itertools import count
from secrets import randbelow
from time import monotonic

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from convmat import Convolution
from tests.fuzz.checking import ALL_ENGINES, Counts, check
from tests.fuzz.drawing import draw
from tests.fuzz.reporting import difference, reproduction, smallest


def parse(arguments):
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to draw (default: 1)")
    parser.add_argument("--cases", type=int, help="how many to draw at most")
    parser.add_argument("--seed", type=int, help="draw what another run drew (default: none has drawn it)")
    parser.add_argument("--case", type=int, help="check this case of the seed alone")
    parser.add_argument("--engines", nargs="+", choices=ALL_ENGINES, default=ALL_ENGINES, metavar="ENGINE",
                        help=f"those to check, of {', '.join(ALL_ENGINES)} (default: all)")  # fmt: skip
    parser.add_argument("--failures", type=int, default=10, help="stop after so many (default: 10)")
    options = parser.parse_args(arguments)
    if options.case is not None and options.seed is None:
        parser.error("--case needs --seed")
    return options


def warm_up():
    """Use every engine once: afterwards, what `auto` chooses no longer depends on what was used before."""
    for name in ALL_ENGINES:
        kernel, shape = (np.ones((3, 3)), (5, 5)) if name == "separable" else (np.ones((8, 8, 3, 3)), (8, 5, 5))
        try:
            Convolution(kernel, shape, engine=name).apply(np.ones(shape))
        except ValueError:  # a package is missing: it is said where the engine is counted
            continue


def report(case, name, found):
    """Print a difference, made as small as it can be."""
    seed, number = case.seed
    print(f"\n{name}: {found}\n# python -m tests.fuzz --seed {seed} --case {number}", flush=True)
    small = smallest(case, name)
    print(f"# {name}: {difference(small, name)}\n# {small}\n{reproduction(small, name)}", flush=True)


def run(options, counts):
    """Check cases until the time is over."""
    end = monotonic() + 60 * options.minutes
    numbers = count() if options.case is None else [options.case]
    for number in numbers:
        if monotonic() > end or number == options.cases or counts.differences >= options.failures:
            break
        case = draw(options.seed, number)
        for name, found in check(case, options.engines, counts):
            if found:
                counts.differences += 1
                report(case, name, found)


def main(arguments=None):
    """Run; return the exit status."""
    options = parse(arguments)
    if options.seed is None:
        options.seed = randbelow(2**32)
    print(f"seed {options.seed}", flush=True)
    counts, interrupted = Counts(), False
    # Shapes as those of a layer with a batch come by chance.
    warnings.filterwarnings("ignore", "a kernel of shape .* mean a convolution over")
    warm_up()
    try:
        run(options, counts)
    except KeyboardInterrupt:
        interrupted = True
    print(f"\n{counts}")
    # A few cases need not reach all engines; a run of some seconds has to.
    unreached = counts.unreached(options.engines) if counts.cases >= 500 else []
    for name in unreached:
        print(f"the engine {name} was never reached")
    print(f"{counts.differences} differences")
    return 130 if interrupted else int(bool(counts.differences or unreached))


if __name__ == "__main__":
    sys.exit(main())
