"""Computing without floating-point warnings: what NumPy is told to do about them is its user's, and stays as it is.

Whether a product sets a floating-point flag depends on the instructions that it is computed with: one BLAS kernel sets
"invalid" for an Inf in the input, another does not. So products, plans and matrices neither warn nor raise, whatever
`numpy.seterr` says, and what is not finite is seen in the result.
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
    """Return what a function returns, and let NumPy ignore floating-point errors meanwhile, in this thread.

    A context of Python is entered and left by one call in C, so that an interrupt cannot leave the caller's settings
    changed.
    """
    return _quiet.copy().run(function, *arguments, **options)
