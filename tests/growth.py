"""What this process keeps of each of many jobs: an orchestrator runs thousands in one."""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WARM = 2  # jobs until caches are filled and modules loaded
JOBS = 4


def kept_by(job: Callable[[], object]) -> dict[str, int]:
    """How many of what has come with each of several jobs: open files, threads, tracked objects."""
    with _unseen_by_pytest():
        for _ in range(WARM):
            job()
            _census()  # which makes a few objects itself the first time
        before = _census()
        for _ in range(JOBS):
            job()
        after = _census()
    grown = {what: (after[what] - before[what]) // JOBS for what in after}
    return {what: number for what, number in grown.items() if number > 0}


@contextmanager
def _unseen_by_pytest() -> Iterator[None]:
    """Which keeps what is logged until a test ends."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers


def _census() -> Counter[str]:
    gc.collect()
    found = Counter(map(repr, map(type, gc.get_objects())))
    found["open files"] = len(list(Path("/proc/self/fd").iterdir()))
    found["threads"] = threading.active_count()
    return found
