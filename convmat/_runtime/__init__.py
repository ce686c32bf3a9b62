"""The machine that products run on: threads, forks, memory, files that are kept, and floating-point errors."""

from convmat._runtime.disk import read_trusted, user_cache, write_whole
from convmat._runtime.forks import lazy, new_lock, undisturbed
from convmat._runtime.memory import available_memory, check_memory, memory_limit
from convmat._runtime.parallel import (
    InOrder,
    available_cpus,
    call_single_threaded,
    count_blocks,
    count_workers,
    run_blocks,
)
from convmat._runtime.progress import track
from convmat._runtime.quiet import quietly

__all__ = [
    "InOrder",
    "available_cpus",
    "available_memory",
    "call_single_threaded",
    "check_memory",
    "count_blocks",
    "count_workers",
    "lazy",
    "memory_limit",
    "new_lock",
    "quietly",
    "read_trusted",
    "run_blocks",
    "track",
    "undisturbed",
    "user_cache",
    "write_whole",
]
