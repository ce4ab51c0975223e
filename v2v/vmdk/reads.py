"""Reads that are under way at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from v2v.vmdk.pieces import GAP, LOCAL_GAP

Job = Callable[[], None]

MAX_THREADS = 64  # whatever the store says: each may hold v2v.vmdk.pieces.SPAN


class Reads:
    """Runs reads in as many threads as the store wants; they are made when first needed.

    A job only reads: it never waits for another one, so that all of them come to an end. The
    threads end when this object is forgotten.
    """

    def __init__(self, parallel: int) -> None:
        self._threads = min(parallel, MAX_THREADS)
        self.gap = GAP if parallel > 1 else LOCAL_GAP  # see v2v.vmdk.pieces
        self._pool: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def run(self, jobs: Sequence[Job]) -> None:
        """All of the jobs; raises the error of one, when none is working any more."""
        if self._threads < 2 or len(jobs) < 2:
            for job in jobs:
                job()
            return
        futures = [self._started().submit(job) for job in jobs[1:]]
        try:
            jobs[0]()
            _finish(futures)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # they write into the caller's memory

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="vmdk")
            return self._pool


def _finish(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.result()
