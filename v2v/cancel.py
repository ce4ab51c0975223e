"""Asking a running job to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from v2v.errors import Cancelled


class Cancel:
    """A token that one thread sets and the job's threads look at.

    Work that blocks outside Python (an appliance, a tool) registers what unblocks it with
    `calling`; it is called once, from the thread that cancels.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise Cancelled if the job was asked to stop."""
        if self.cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleep, unless and until cancelled; then raise Cancelled."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, unblock: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            if self.cancelled:
                raise Cancelled
            self._callbacks.append(unblock)
        try:
            yield
        finally:
            with self._lock:
                if unblock in self._callbacks:
                    self._callbacks.remove(unblock)


def raise_cause(errors: Iterable[BaseException]) -> None:
    """Raise what ended several threads: the first error, and a Cancelled only if all are that."""
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error
