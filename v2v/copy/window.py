"""How many bytes one connection has in flight: enough to fill the link, and not much more.

A link of latency L and rate B is full when L x B bytes are on their way (the bandwidth-delay
product). More than that only waits in queues, uses memory and falls out of the CPU's caches.
Neither L nor B is known beforehand, and a server that works on requests side by side looks like a
longer link. So the window is found by trying, in *rounds*: a round ends when a read that was sent
after its beginning has come back, so it is at least one round trip, and gives a rate.

- Grow: double the window as long as that brings at least GAIN. A change shows one round late: the
  round right after it delivers what was asked for before, and is not looked at.
- Shrink: have only a quarter of the window in flight for a round. No queue of our own is left then,
  so the latency that the reads see is that of the link and the server, and the window needs no
  more than HEADROOM times the rate times that latency. Repeated while it shrinks much.
- Hold: change nothing until the next multiple of PROBE_SECONDS of the clock, then begin again.
  Connections that share a link do so at the same time, or one would measure the other's queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

FIRST_RATE = 1.25e9  # bytes per second: the first window would fill a link of 10 Gbit/s
GAIN = 1.1  # what doubling must bring: less is not worth the memory
HEADROOM = 2  # answers come in bursts, and the reader is busy with other things now and then
ROUND_SECONDS = 0.02  # at least: in less, threads that take turns decide what is measured
PROBE_SECONDS = 10.0  # shrinking costs about one round trip each time
REMEMBERED = 8  # rounds of which the best counts: one may be slow because the target was


@dataclass(frozen=True, slots=True)
class Round:
    rate: float  # bytes per second
    latency: float  # seconds: the mean of the reads sent since the window changed
    end: float


Rounds: TypeAlias = Generator[None, Round, float]  # gives the rate that the window brings


class Window:
    """`size` bytes may be in flight, from `smallest` to `largest`. Not for several threads.

    `latency`: about how many seconds one small read takes. Times are of one monotonic clock.
    """

    def __init__(self, latency: float, *, smallest: int, largest: int) -> None:
        self._smallest, self._largest = smallest, max(smallest, largest)
        self._start: float | None = None  # of the round
        self._changed = 0.0  # when `size` did
        self._bytes = 0
        self._latencies: list[float] = []
        self._resize(latency * FIRST_RATE)
        self._steps = self._adapt()
        next(self._steps)

    @property
    def size(self) -> int:
        return self._size

    def done(self, length: int, sent: float, now: float) -> None:
        """One read came back: `length` bytes that were asked for at `sent`."""
        if self._start is None:
            self._start = self._changed = now
            return
        self._bytes += length
        if sent >= self._changed:
            self._latencies.append(now - sent)
        seconds = now - self._start
        if sent >= self._start and seconds >= ROUND_SECONDS:
            latency = sum(self._latencies) / len(self._latencies)
            ended = Round(self._bytes / seconds, latency, now)
            self._start, self._bytes = now, 0
            self._latencies.clear()
            self._steps.send(ended)

    def _resize(self, size: float) -> None:
        self._size = int(min(max(size, self._smallest), self._largest))
        self._changed = self._start or 0.0

    def _adapt(self) -> Rounds:
        rate = yield from self._grow()
        while True:
            yield from self._shrink(rate)
            yield from self._grow()
            rate = yield from self._hold()

    def _grow(self) -> Rounds:
        rate = (yield).rate
        while (before := self._size) < self._largest:
            self._resize(2 * before)
            yield
            doubled = (yield).rate
            if doubled < GAIN * rate:
                self._resize(before)
                break
            rate = doubled
        return rate

    def _shrink(self, rate: float) -> Rounds:
        shrunk = True
        while shrunk and (before := self._size) > self._smallest:
            self._resize(before / 4)
            yield
            self._resize(min(before, HEADROOM * rate * (yield).latency))
            yield
            shrunk = self._size < 0.75 * before
        return rate

    def _hold(self) -> Rounds:
        rounds = deque([(yield)], REMEMBERED)
        due = rounds[0].end // PROBE_SECONDS + 1
        while rounds[-1].end < due * PROBE_SECONDS:
            rounds.append((yield))
        return max(round.rate for round in rounds)
