"""What this process keeps of each of many jobs: an orchestrator runs thousands in one."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

WARM = 2  # jobs until caches are filled and modules loaded
JOBS = 4
LINGER_SECONDS = 60.0  # a fake server's thread ends a little after its client


def kept_by(job: Callable[[], object], *, of: Collection[str] = ()) -> dict[str, int]:
    """How many of what has come with each of several jobs: open files, threads, tracked objects.

    of: what is looked at, where not all is.
    """
    with _unseen_by_pytest():
        for _ in range(WARM):
            job()
            _census()  # which makes a few objects itself the first time
        before = _census()
        for _ in range(JOBS):
            job()
        deadline = time.monotonic() + LINGER_SECONDS
        while (grown := _grown(before, of)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return grown


def _grown(before: Counter[str], of: Collection[str]) -> dict[str, int]:
    after = _census()
    by_job = {what: (after[what] - before[what]) // JOBS for what in of or after}
    return {what: number for what, number in by_job.items() if number > 0}


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
