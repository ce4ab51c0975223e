"""A connection to libvirt that lasts, for a disk that is sent through it.

Its calls are made by a thread of its own: they cannot be interrupted, and may hang.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from v2v.cancel import Cancel
from v2v.errors import Cancelled
from v2v.libvirt_connection import LibvirtHost, binding, connect, end_programs_of

T = TypeVar("T")

CLOSE_SECONDS = 3.0
Outcome = tuple[Any, BaseException | None]
Task = tuple[Callable[[Any], Any], "queue.SimpleQueue[Outcome]"]


class Session:
    """`call` gives what a function makes of the connection, or raises what it raises.

    TimeoutError after `stall` seconds, and Cancelled: then the session is given up. From then on
    each call is a ConnectionError.
    """

    def __init__(self, host: LibvirtHost, *, stall: float, cancel: Cancel) -> None:
        self._stall = stall
        self._cancel = cancel
        self._given_up = False
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._work, args=(binding(), host), name="libvirt-session", daemon=True
        )
        self._thread.start()

    def call(self, action: Callable[[Any], T]) -> T:
        if self._given_up:
            raise ConnectionError(errno.ENOTCONN, "the connection to libvirt was given up")
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        with self._cancel.calling(lambda: outcomes.put((None, Cancelled()))):
            self._tasks.put((action, outcomes))
            try:
                result, error = outcomes.get(timeout=self._stall)
            except queue.Empty:
                self.give_up()
                raise TimeoutError(
                    errno.ETIMEDOUT, f"libvirt did not answer for {self._stall:.0f} seconds"
                ) from None
        if isinstance(error, Cancelled):
            self.give_up()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def post(self, action: Callable[[Any], object]) -> None:
        """The same, but nobody waits for it, or hears of it."""
        self._tasks.put((action, queue.SimpleQueue()))

    def close(self) -> None:
        """Wait a little for the end of what is under way: a volume in use cannot be removed."""
        self._tasks.put(None)
        self._thread.join(CLOSE_SECONDS)

    def give_up(self) -> None:
        self._given_up = True
        self._tasks.put(None)
        end_programs_of(self._thread)

    def _work(self, libvirt: Any, host: LibvirtHost) -> None:
        connection = None
        while (task := self._tasks.get()) is not None:
            action, outcomes = task
            try:
                connection = connection or connect(libvirt, host)
                outcomes.put((action(connection), None))
            except BaseException as exc:  # noqa: BLE001  raised in the thread that waits for it
                outcomes.put((None, exc))
        if connection is not None:
            connection.close()
