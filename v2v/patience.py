"""Calls that cannot be interrupted, and may hang: another thread does them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from v2v.cancel import Cancel
from v2v.errors import Cancelled

T = TypeVar("T")


def in_thread(
    action: Callable[[], T],
    *,
    name: str,
    seconds: float,
    cancel: Cancel | None,
    give_up: Callable[[threading.Thread], None] | None = None,
) -> T:
    """What `action` gives, or raises; TimeoutError after `seconds`, Cancelled as soon as told.

    Then it is left alone, after `give_up` of its thread, which ends what it waits for.
    """
    outcomes: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put((action(), None))
        except BaseException as exc:  # noqa: BLE001  raised below, in the caller's thread
            outcomes.put((None, exc))

    thread = threading.Thread(target=work, name=name, daemon=True)
    with ExitStack() as stack:
        if cancel is not None:
            stack.enter_context(cancel.calling(lambda: outcomes.put((None, Cancelled()))))
        thread.start()
        try:
            result, error = outcomes.get(timeout=seconds)
        except queue.Empty:
            result, error = None, TimeoutError()
    if error is not None:
        if give_up is not None and thread.is_alive():
            give_up(thread)
        raise error
    return result  # type: ignore[return-value]
