"""Computing without floating-point warnings, and without changing the user's `numpy.seterr`.

It depends on the instructions whether a product sets a floating-point flag: one BLAS kernel sets "invalid" for an Inf in the
input, another does not. So products, plans and matrices neither warn nor raise, whatever `numpy.seterr` says. The result
shows what is not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_quiet = Context()
_quiet.run(np.seterr, all="ignore")


def quietly(function: Callable[..., T], *arguments: object, **options: object) -> T:
    """Call a function while NumPy ignores floating-point errors in this thread, and return its result.

    One call in C enters and leaves a Python context, so an interrupt cannot leave the caller's settings changed.
    """
    return _quiet.copy().run(function, *arguments, **options)
