"""The processor time that control groups leave a process: how many threads are worth it."""

import os

import pytest

from convmat import Convolution
from convmat._runtime import groups, parallel
from convmat._runtime.groups import cpu_quota


@pytest.fixture
def group(monkeypatch, tmp_path):
    """A folder that tells what control groups there are, on a machine with 8 CPUs."""
    monkeypatch.setattr(groups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(groups, "_ROOT", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    cpu_quota.cache_clear()
    yield tmp_path
    cpu_quota.cache_clear()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


V2_ROWS = [
    ("150000 100000\n", 2),
    ("200000 100000\n", 2),
    ("1000 100000\n", 1),
    ("400000 200000", 2),
    ("900000 100000\n", 8),
    ("max 100000\n", 8),
    ("", 8),
    ("many 100000", 8),
    ("100000", 8),
    ("100000 0", 8),
    ("-1 100000", 8),
]


@pytest.mark.parametrize(("content", "expected"), V2_ROWS)
def test_a_quota_of_version_2_is_rounded_up(group, content, expected):
    write(group, own="0::/a/b\n")
    write(group / "fs/a/b", cpu__max=content)
    assert parallel.available_cpus() == expected
    assert Convolution([1.0], 3)._products.machine.workers == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"), [(150_000, 100_000, 2), (-1, 100_000, 8), (50_000, 10_000, 5)]
)
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(group, quota, period, expected, controllers):
    write(group, own=f"3:memory:/m\n2:{controllers}:/a\n0::/\n")
    write(group / "fs/cpu/a", cpu__cfs_quota_us=f"{quota}\n", cpu__cfs_period_us=f"{period}\n")
    assert parallel.available_cpus() == expected


def test_the_tightest_group_on_the_way_to_the_root_counts(group):
    write(group, own="0::/a/b/c\n")
    write(group / "fs/a/b/c", cpu__max="600000 100000")
    write(group / "fs/a", cpu__max="300000 100000")
    write(group / "fs/elsewhere", cpu__max="100000 100000")
    assert parallel.available_cpus() == 3


@pytest.mark.parametrize("own", [None, "", "0::/not/there\n", "1:cpu:/x\n"])
def test_without_groups_there_is_no_quota(group, own):
    if own is not None:
        write(group, own=own)
    assert cpu_quota() is None
    assert parallel.available_cpus() == 8


def test_fewer_bound_cpus_than_the_quota_count(group, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    write(group, own="0::/\n")
    write(group / "fs", cpu__max="600000 100000")
    assert parallel.available_cpus() == 2


def test_negative_numbers_count_back_from_the_quota(group):
    write(group, own="0::/\n")
    write(group / "fs", cpu__max="300000 100000")
    assert parallel.count_workers(-1) == 3
    assert parallel.count_workers(-3) == 1
    with pytest.raises(ValueError, match="down to -3"):
        parallel.count_workers(-4)
    assert parallel.count_workers(7) == 7
