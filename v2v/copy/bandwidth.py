"""A limit on the bytes per second that all disks read together, which may change at any time.

Every read is booked before it is asked for. Bookings lie one after the other on the clock, each as
long as its bytes take at the limit; a read waits for the beginning of its own.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from v2v.errors import UsageError
from v2v.types import GiB, KiB, MiB

BURST_SECONDS = 0.2  # how much of an idle time may be made up for
LOOK_SECONDS = 1.0  # between two looks at the file
PAUSE_SECONDS = 0.2  # the longest that one who waits does not look at anything else
LONGEST = 64  # bytes that are read of the file

_log = logging.getLogger(__name__)
_UNITS = {"": 1, "K": KiB, "M": MiB, "G": GiB}


def parse_rate(text: str) -> int | None:
    """Bytes per second from "100M" (K, M, G: of 1024) or "100000"; None for "none" and "0".

    Raises UsageError, id option-value.
    """
    word = text.strip()
    if word.lower() == "none":
        return None
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", word.upper())
    if found is None:
        raise UsageError(
            f"{text!r} is not a rate",
            id="option-value",
            hint="bytes per second, with K, M or G for multiples of 1024: 100M; or none",
        )
    return int(found[1]) * _UNITS[found[2]] or None


class Bandwidth:
    """`limit` bytes per second, None for no limit. For any number of threads.

    `path`: a small file whose rate becomes the limit when it appears or changes.
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._limit = limit or None
        self._free = clock() - BURST_SECONDS  # when the bookings end
        self._changes = 0
        self._path = path
        self._looked = clock() - LOOK_SECONDS
        self._text = ""  # of the file, when it was last looked at

    @property
    def limit(self) -> float | None:
        with self._lock:
            self._look()
            return self._limit

    @limit.setter
    def limit(self, limit: float | None) -> None:
        with self._lock:
            self._change(limit)

    @property
    def changes(self) -> int:
        """How often the limit changed. Who waits since an earlier one need not wait any longer."""
        with self._lock:
            self._look()
            return self._changes

    def take(self, length: int) -> float:
        """Book `length` bytes; gives the seconds to wait before asking for them."""
        with self._lock:
            self._look()
            if self._limit is None:
                return 0.0
            now = self._clock()
            start = max(self._free, now - BURST_SECONDS)
            self._free = start + length / self._limit
            return max(start - now, 0.0)

    def pause(self, length: int, wait: Callable[[float], None]) -> None:
        """Book `length` bytes, and call `wait` with a few seconds at a time until their turn comes.

        A limit that changes meanwhile ends the pause.
        """
        changes = self.changes
        end = self._clock() + self.take(length)
        while (left := end - self._clock()) > 0 and self.changes == changes:
            wait(min(left, PAUSE_SECONDS))

    def _change(self, limit: float | None) -> None:
        """What is booked ahead takes as long as it does at the new limit."""
        limit = limit or None
        if limit == self._limit:
            return
        now = self._clock()
        ahead = max(self._free - now, 0.0) * (self._limit or 0.0)  # bytes
        self._free = now + (ahead / limit if limit else 0.0)
        self._limit = limit
        self._changes += 1

    def _look(self) -> None:
        if self._path is None or self._clock() - self._looked < LOOK_SECONDS:
            return
        self._looked = self._clock()
        text = self._read(self._path)
        if text and text != self._text:
            self._text = text
            try:
                self._change(parse_rate(text))
            except UsageError as exc:
                _log.warning("%s: %s; the limit stays as it is", self._path, exc.message)

    @staticmethod
    def _read(path: Path) -> str:
        """What the file says; nothing while it is not there, or is being written."""
        try:
            with path.open("rb") as file:
                return file.read(LONGEST).decode(errors="replace").strip()
        except OSError:
            return ""
