"""How many bytes one connection has in flight: enough to fill the link, and not much more.

A link of latency L and rate B is full when L x B bytes are on their way (the bandwidth-delay
product). More than that only waits in queues, uses memory and falls out of the CPU's caches.
Neither L nor B is known beforehand, and a server that works on requests side by side looks like a
longer link. So the window is found by trying, in *rounds*: a round ends when a read that was sent
after its beginning has come back, so it is at least one round trip, and gives a rate and the mean
latency. What a change brings shows one round late, so the round right after it is not looked at.

1. Shrink: have a quarter of the window in flight for a round. There is no queue of our own then,
   and the reads see the latency of the link and the server. Keep at most HEADROOM times the product
   of that and the rate. Repeat while it shrinks much.
2. Grow: double the window as long as that brings GAIN, up to MOST times the product. There is an
   end because connections that share a link gain from each other when they grow.
3. Hold, until the clock shows a multiple of a few seconds. The clock, because connections that
   share a link must shrink at the same time, or one would measure the queue of the other.

Servers give each connection its turn. Where one gave more to the connection that has asked for
more, several would outbid each other, up to `largest`: that costs memory, but no rate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from typing import TypeAlias

FIRST_RATE = 1.25e9  # bytes per second: the first window would fill a link of 10 Gbit/s
GAIN = 1.1  # what doubling must bring: less is not worth the memory
HEADROOM = 2  # answers come in bursts, and the reader is busy with other things now and then
MOST = 4
ROUND_SECONDS = 0.02  # of a round, at least: in less, threads that take turns decide the rate
ROUND_READS = 8  # likewise, because servers answer some reads faster than others
FIRST_HOLD = 1.0  # seconds; then twice as long each time, because trying costs a round trip or two
LAST_HOLD = 8.0
REMEMBERED = 8  # rounds of which the best counts: one may be slow because the target was

# Yields whether the next round is to be measured, and receives its rate and latency.
Rounds: TypeAlias = Generator[bool, tuple[float, float], None]


class Window:
    """`size` bytes may be in flight, from `smallest` to `largest`. Not for several threads.

    `latency`: about how many seconds one small read takes. Times are of one monotonic clock.
    """

    def __init__(self, latency: float, *, smallest: int, largest: int) -> None:
        self._smallest, self._largest = smallest, max(smallest, largest)
        self._start = -math.inf  # of the round
        self._bytes = self._reads = 0  # that came back in it
        self._latencies: list[float] = []  # of what was sent since the window changed
        self._rates: deque[float] = deque([0.0], REMEMBERED)
        self._hold = FIRST_HOLD
        self._due = math.inf  # when to try again; never while that is under way
        self._resize(latency * FIRST_RATE)
        self._trying = self._try()
        self._measuring = next(self._trying)

    @property
    def size(self) -> int:
        return self._size

    def done(self, length: int, sent: float, now: float) -> None:
        """One read came back: `length` bytes that were asked for at `sent`."""
        if self._start == -math.inf:  # the first one: the handshake tells nothing of slow disks
            self._begin_round(now)
            self._resize(max(self._size, (now - sent) * FIRST_RATE))
            return
        self._bytes += length
        self._reads += 1
        if sent >= self._changed:
            self._latencies.append(now - sent)
        if now >= self._due:
            self._begin_round(now)
            self._trying = self._try()
            self._measuring = next(self._trying)
        elif sent >= self._start:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        seconds = now - self._start
        rate = latency = 0.0
        if self._measuring:
            if seconds < ROUND_SECONDS or self._reads < ROUND_READS:
                return  # not yet
            rate, latency = self._bytes / seconds, sum(self._latencies) / len(self._latencies)
            self._rates.append(rate)
        self._begin_round(now)
        self._measuring = self._trying.send((rate, latency))

    def _begin_round(self, now: float) -> None:
        self._start, self._bytes, self._reads = now, 0, 0
        self._latencies.clear()

    def _resize(self, size: float) -> None:
        self._size = int(min(max(size, self._smallest), self._largest))
        self._changed = self._start

    def _try(self) -> Rounds:
        self._due = math.inf
        if not any(self._rates):
            yield True  # the first round, for a rate
        best, shrunk = max(self._rates), True
        while shrunk:
            before = self._size
            self._resize(before / 4)
            if self._size < before:
                yield False
            _, latency = yield True
            self._resize(min(before, HEADROOM * best * latency))
            yield False
            shrunk = self._size < 0.75 * before
        rate, _ = yield True
        while (before := self._size) < min(self._largest, MOST / 2 * rate * latency):
            self._resize(2 * before)
            yield False
            doubled, _ = yield True
            if doubled < GAIN * rate:
                self._resize(before)
                break
            rate = doubled
        self._due = (self._start // self._hold + 1) * self._hold
        self._hold = min(2 * self._hold, LAST_HOLD)
        while True:
            yield True
