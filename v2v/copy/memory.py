"""The buffers of all disks of a run: one budget, shared fairly.

A buffer that is given back lies idle until somebody takes one of its size; when the budget is used
up, idle ones of other sizes are freed.
"""

from __future__ import annotations

import threading
from collections import Counter

DEFAULT_OWNER = "everybody"


class Memory:
    """Buffers of `total` bytes in all, idle ones too. For any number of threads.

    No owner (a disk) starves. One that holds nothing gets a buffer even above the total. One that
    holds more than its share gets no further buffer while another one, that was refused, holds
    less than its share.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._idle: dict[int, list[bytearray]] = {}
        self._taken: dict[int, tuple[bytearray, object]] = {}  # id: buffer and owner
        self._held: Counter[object] = Counter()  # owner: bytes
        self._refused: dict[object, int] = {}  # owner: the size that it did not get
        self._change = threading.Condition()
        self._given_back = 0  # how often
        self._thread = threading.local()

    @property
    def used(self) -> int:
        """Bytes that there are: held by owners, or idle."""
        with self._change:
            return self._used

    def take(self, size: int, owner: object = DEFAULT_OWNER) -> memoryview | None:
        """A buffer of `size` bytes with anything in it; None when there is none now."""
        with self._change:
            self._thread.seen = self._given_back
            buffer = self._find(size, owner)
            if buffer is None:
                self._refused[owner] = size
                return None
            self._refused.pop(owner, None)
            self._taken[id(buffer)] = (buffer, owner)
            self._held[owner] += size
            return memoryview(buffer)

    def give_back(self, view: memoryview) -> None:
        """`view` is what `take` gave, or a part of it; nobody may use it any longer."""
        with self._change:
            buffer, owner = self._taken.pop(id(view.obj))
            size = len(buffer)
            self._held[owner] -= size
            if not self._held[owner]:
                del self._held[owner]
                self._refused.pop(owner, None)
            if self._used > self.total:
                self._used -= size
            else:
                self._idle.setdefault(size, []).append(buffer)
            self._given_back += 1
            self._change.notify_all()

    def reclaim(self, owner: object) -> None:
        """Take back all that `owner` holds: whoever used it is gone."""
        with self._change:
            views = [memoryview(b) for b, holder in self._taken.values() if holder == owner]
            for view in views:
                self.give_back(view)
            self._refused.pop(owner, None)

    def wait(self, seconds: float) -> None:
        """Until something was given back after this thread's last `take`, by whomever."""
        with self._change:
            seen = getattr(self._thread, "seen", self._given_back)
            self._change.wait_for(lambda: self._given_back != seen, seconds)

    def _find(self, size: int, owner: object) -> bytearray | None:
        holds_none = not self._held[owner]
        if not holds_none and self._yields(size, owner):
            return None
        if idle := self._idle.get(size):
            return idle.pop()
        self._make_room(size)
        if self._used + size > self.total and not holds_none:
            return None
        buffer = bytearray(size)
        self._used += size
        return buffer

    def _yields(self, size: int, owner: object) -> bool:
        """Whether another owner's turn comes first."""
        share = self.total / max(len(self._held), 1)
        return self._held[owner] + size > share and any(
            self._held[other] + missing <= share
            for other, missing in self._refused.items()
            if other != owner
        )

    def _make_room(self, size: int) -> None:
        for idle_size, idle in self._idle.items():
            while idle and self._used + size > self.total:
                idle.pop()
                self._used -= idle_size
