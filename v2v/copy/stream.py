"""One long request to the target, fed by many small reads: for sinks that have `write_from`.

Where each request costs the same whatever its size, as an HTTP upload does, a request should be
longer than memory. Its bytes are asked for ahead and handed over in order. The length of a request
must be known before it is sent: zeroes that are found in the data are left out at its beginning
only, and sent further on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from v2v.cancel import Cancel
from v2v.copy.fetch import POLL_SECONDS, Fetcher, Filling
from v2v.copy.memory import Memory
from v2v.copy.plan import Step, Unit, Zero, plan
from v2v.copy.target import Target
from v2v.copy.zeroes import all_zero
from v2v.extents import Extent
from v2v.types import MiB

PIECE = 1 * MiB  # bytes that are read, hashed and handed over together; v2v.copy.digests.CHUNK
AHEAD = 4  # pieces that have come and were not sent yet: the target is slower than the source


def requests(unit: Unit, *, grain: int, alignment: int, size: int) -> Iterator[Unit | Zero]:
    """A unit as requests: cut where it has gaps, and at holes of `grain` bytes and more.

    Holes are narrowed to multiples of `alignment`; shorter ones are sent as zeroes.
    """
    parts: list[Extent] = []
    for extent in unit.extents:
        if parts and parts[-1].end != extent.offset:
            yield _request(parts)
            parts = []
        hole = _hole(extent, alignment, size) if extent.zero else None
        if hole is None or hole.length < max(grain, 1):
            parts.append(extent)
            continue
        if before := hole.offset - extent.offset:
            parts.append(Extent(extent.offset, before, zero=True))
        if parts:
            yield _request(parts)
        yield Zero(hole.offset, hole.length)
        parts = (
            [Extent(hole.end, extent.end - hole.end, zero=True)] if extent.end > hole.end else []
        )
    if parts:
        yield _request(parts)


def _request(parts: list[Extent]) -> Unit:
    return Unit(parts[0].offset, parts[-1].end - parts[0].offset, tuple(parts))


def _hole(extent: Extent, alignment: int, size: int) -> Extent | None:
    low = -(-extent.offset // alignment) * alignment
    high = extent.end if extent.end == size else extent.end // alignment * alignment
    return Extent(low, high - low, zero=True) if low < high else None


class Feed:
    """The bytes of one request after the other, in order: v2v.copy.sinks.Feed.

    What comes after a request is asked for before that one has ended, so that a source which is far
    away does not wait for its answer.
    """

    def __init__(
        self,
        parts: Iterable[Unit | Zero],
        fetcher: Fetcher,
        target: Target,
        memory: Memory,
        *,
        owner: object,
        pace: Callable[[Fetcher, int], None],
        may_ask: Callable[[Fetcher], bool],
        moved: Callable[[int], None],
        stop: Cancel,
    ) -> None:
        """`may_ask`: whether a reader may ask for more than comes next. `moved`: bytes of data."""
        self._fetcher = fetcher
        self._target = target
        self._memory = memory
        self._owner = owner
        self._pace = pace
        self._may_ask = may_ask
        self._moved = moved
        self._stop = stop
        self._parts: deque[Unit | Zero] = deque()  # that are begun to be asked for
        self._steps = self._plan(parts)
        self._queue: deque[Filling | Zero] = deque()  # in disk order
        self._position = self._end = 0

    def next(self) -> Unit | Zero | None:
        """What is to be done next; `readinto` gives the bytes of a Unit. None at the end."""
        self._stop.check()
        if not self._parts:
            self._top_up()
        if not self._parts:
            return None
        part = self._parts.popleft()
        if isinstance(part, Unit):
            self._position, self._end = part.offset, part.end
        return part

    def _plan(self, parts: Iterable[Unit | Zero]) -> Iterator[Step]:
        for part in parts:
            self._parts.append(part)
            if isinstance(part, Unit):
                yield from plan(part.extents, unit=PIECE, alignment=1, size=part.end)

    def skip_zeroes(self) -> int:
        """Leave out the pieces of zeroes that come next, if any; gives how many bytes they are.

        For the beginning of a request, whose length must be known before it is sent.
        """
        start = self._position
        while self._position < self._end:
            head = self._head()
            if isinstance(head, Zero):
                self._advance(head, head.length)
                continue
            if not all_zero(head.view):
                break
            self._target.tally.add(found_zero=head.data)
            self._take(head)
            self._advance(head, head.unit.length)
        return self._position - start

    def readinto(self, buffer: memoryview, /) -> int:
        """Put the next bytes into `buffer`; gives how many, 0 at the end."""
        if self._position == self._end or not buffer:
            return 0
        head = self._head()
        return self._zeroes(head, buffer) if isinstance(head, Zero) else self._data(head, buffer)

    def _head(self) -> Filling | Zero:
        """What comes next, once it is there."""
        self._stop.check()
        self._top_up()
        head = self._queue[0]
        while isinstance(head, Filling) and head not in self._fetcher.full:
            self._stop.check()
            self._fetcher.wait(POLL_SECONDS)
            self._top_up()
        return head

    def _data(self, head: Filling, buffer: memoryview) -> int:
        start = self._position - head.unit.offset
        count = min(head.unit.length - start, len(buffer))
        buffer[:count] = head.buffer[start : start + count]
        if start + count == head.unit.length:
            self._take(head)
        self._advance(head, count)
        return count

    def _take(self, head: Filling) -> None:
        """It is used up."""
        self._target.hash(head.unit, head.view)
        self._fetcher.full.remove(head)
        self._memory.give_back(head.buffer)
        self._moved(head.data)

    def _zeroes(self, head: Zero, buffer: memoryview) -> int:
        count = min(head.end - self._position, len(buffer), PIECE)
        buffer[:count] = bytes(count)
        self._advance(head, count)
        return count

    def _advance(self, head: Filling | Zero, count: int) -> None:
        self._position += count
        end = head.end if isinstance(head, Zero) else head.unit.end
        if self._position == end:
            self._queue.popleft()

    def _may_ask_more(self) -> bool:
        fetcher = self._fetcher
        return len(fetcher.full) < AHEAD and fetcher.has_room(PIECE) and self._may_ask(fetcher)

    def _top_up(self) -> None:
        """Ask for what comes next, as far as the window and the memory allow."""
        while not self._queue or self._may_ask_more():
            buffer = self._memory.take(PIECE, owner=self._owner)
            if buffer is None:
                if self._queue:
                    return
                self._stop.check()
                self._memory.wait(POLL_SECONDS)
                continue
            step = next(self._steps, None)
            if not isinstance(step, Unit):
                self._memory.give_back(buffer)
                if step is None:
                    return
                self._target.hash_zero(Extent(step.offset, step.length, zero=True))
                self._queue.append(step)
                continue
            for extent in step.extents:
                if extent.zero:
                    start = extent.offset - step.offset
                    buffer[start : start + extent.length] = bytes(extent.length)
            filling = Filling(step, buffer)
            self._pace(self._fetcher, filling.data)
            self._queue.append(filling)
            self._fetcher.fetch(filling)
