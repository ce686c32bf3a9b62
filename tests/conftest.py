"""Settings of all tests."""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("brief", parent=settings.get_profile("default"), max_examples=20)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    parser.addoption(
        "--auto",
        metavar="ENGINE",
        help='what engine="auto" takes where it can: an engine, the "slowest" one, or "another" each time',
    )


@pytest.fixture(autouse=True)
def drawn_anew(request, monkeypatch):
    """Let each test draw the same numbers, whichever ran before it in the same process."""
    if isinstance(getattr(request.module, "RNG", None), np.random.Generator):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))


@pytest.fixture(autouse=True)
def auto(request, monkeypatch):
    """Let ``engine="auto"`` take an engine that it would not take, but where a test is about the choice itself."""
    wanted = request.config.getoption("auto")
    if wanted is None or request.node.get_closest_marker("choice"):
        return
    from convmat.operators import _products

    turns = itertools.count()

    def plan(*arguments):
        estimates = real_plan(*arguments)
        able = {each.engine: each for each in estimates if each.is_candidate}
        if wanted == "another":
            best = list(able.values())[next(turns) % len(able)]
        else:
            best = max(able.values(), key=lambda each: each.seconds) if wanted == "slowest" else able.get(wanted)
        if best is None:
            return estimates
        return tuple(replace(each, chosen=each is best) for each in estimates)

    real_plan = _products.plan
    monkeypatch.setattr(_products, "plan", plan)
