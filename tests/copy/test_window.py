"""The window finds what fills a link. The links are arithmetic: no clock, no chance."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

import pytest

from v2v.copy.window import LAST_HOLD, Window
from v2v.types import GiB, KiB, MiB

READ = 256 * KiB
SMALLEST = 1 * MiB
LARGEST = 256 * MiB


@dataclass
class Link:
    """Answers are on their way for `latency`, and pass one after the other, `rate` bytes a second.

    The server has `threads`, and each takes `cost` for a read. `fair`: connections take turns, as
    they do when a server answers each for itself; else reads are answered in the order they come.
    """

    latency: float
    rate: float
    cost: float = 0.0
    threads: int = 1
    fair: bool = True
    free: float = 0.0  # when the line is
    servers: list[float] = field(default_factory=list)  # when each thread is
    turn: int = 0

    def ready(self, now: float) -> float:
        """When the server has read what is asked for now."""
        if len(self.servers) < self.threads:
            heapq.heappush(self.servers, 0.0)
        ready = max(now + self.latency / 2, heapq.heappop(self.servers)) + self.cost
        heapq.heappush(self.servers, ready)
        return ready

    def next(self, readers: list[Reader]) -> tuple[float, Reader] | None:
        """The reader whose answer passes next, and when it begins to."""
        waiting = [reader for reader in readers if reader.asked]
        if not waiting:
            return None
        first = min(waiting, key=lambda reader: reader.asked[0][0])
        start = max(self.free, first.asked[0][0])
        while self.fair:
            self.turn = (self.turn + 1) % len(readers)
            first = readers[self.turn]
            if first.asked and first.asked[0][0] <= start:
                break
        return start, first


class Reader:
    """A connection that always has something to ask for."""

    def __init__(self, link: Link, window: Window) -> None:
        self.link, self.window = link, window
        self.in_flight = 0
        self.asked: deque[tuple[float, float]] = deque()  # when it is ready, when it was sent

    def ask(self, now: float) -> None:
        while not self.in_flight or self.in_flight + READ <= self.window.size:
            self.in_flight += READ
            self.asked.append((self.link.ready(now), now))

    def take(self, sent: float, now: float) -> None:
        self.in_flight -= READ
        self.window.done(READ, sent, now)
        self.ask(now)


class Copy:
    """Connections that share a link."""

    def __init__(self, link: Link, *, guess: float | None = None, connections: int = 1) -> None:
        latency = link.latency if guess is None else guess
        self.link = link
        self.now = 0.0
        self.moved = 0
        self.answers: list[tuple[float, int, float]] = []  # when it comes, whose, when it was sent
        self.readers = [
            Reader(link, Window(latency, smallest=SMALLEST, largest=LARGEST))
            for _ in range(connections)
        ]
        for reader in self.readers:
            reader.ask(0.0)

    @property
    def window(self) -> int:
        """Of all connections together."""
        return sum(reader.window.size for reader in self.readers)

    def run(self, seconds: float) -> float:
        """Copy for so long; gives the bytes per second."""
        end, before = self.now + seconds, self.moved
        while self.now < end:
            self.step(end)
        self.now = end
        return (self.moved - before) / seconds

    def step(self, end: float) -> None:
        """An answer comes, or one begins to pass."""
        coming = self.answers[0][0] if self.answers else math.inf
        passing = self.link.next(self.readers)
        self.now = min(coming, passing[0] if passing else math.inf)
        if self.now >= end:
            return
        if passing is None or coming <= passing[0]:
            _, number, sent = heapq.heappop(self.answers)
            self.moved += READ
            self.readers[number].take(sent, self.now)
        else:
            start, reader = passing
            self.link.free = start + READ / self.link.rate
            came = self.link.free + self.link.latency / 2
            heapq.heappush(
                self.answers, (came, self.readers.index(reader), reader.asked.popleft()[1])
            )


def product(link: Link) -> float:
    """What fills the link."""
    return link.latency * link.rate


def test_a_long_link_is_full_from_the_first_round_trip_on() -> None:
    link = Link(latency=0.02, rate=1e9)
    assert Window(0.02, smallest=SMALLEST, largest=LARGEST).size >= product(link)


@pytest.mark.parametrize("guess", [0.002, 0.005, 0.01])
def test_a_long_link_is_full_soon_after_a_wrong_guess(guess: float) -> None:
    copy = Copy(Link(latency=0.02, rate=1e9), guess=guess)
    windows = []
    for _ in range(12):
        copy.run(copy.link.latency)
        windows.append(copy.window)
    assert max(windows) >= product(copy.link)


def test_a_long_link_stays_full_and_has_little_queue() -> None:
    copy = Copy(Link(latency=0.02, rate=1e9))
    copy.run(1)
    assert copy.run(60) > 0.97e9
    assert product(copy.link) < copy.window < 3 * product(copy.link)


def test_a_slow_link_gets_a_small_window() -> None:
    copy = Copy(Link(latency=0.02, rate=50e6))  # the first guess is 25 times what it needs
    copy.run(5)
    assert copy.window < 3 * product(copy.link)
    assert copy.run(60) > 0.97 * 50e6


@pytest.mark.parametrize("rate", [1e9, 4e9])
def test_a_local_link_keeps_the_smallest_window_and_its_rate(rate: float) -> None:
    copy = Copy(Link(latency=50e-6, rate=rate))
    assert copy.run(2) > 0.97 * rate
    assert copy.window <= 2 * SMALLEST


def test_a_link_that_becomes_slower_gets_a_smaller_window() -> None:
    copy = Copy(Link(latency=0.02, rate=1e9))
    copy.run(5)
    copy.link.rate = 100e6
    copy.run(2 * LAST_HOLD)
    assert copy.window < 3 * product(copy.link)
    assert copy.run(30) > 0.97 * 100e6


def test_a_link_that_becomes_faster_gets_a_larger_window() -> None:
    copy = Copy(Link(latency=0.02, rate=50e6))
    copy.run(5)
    copy.link.rate = 1e9
    copy.run(2 * LAST_HOLD)
    assert copy.window > product(copy.link)
    assert copy.run(30) > 0.97e9


def test_a_link_that_becomes_longer_gets_a_larger_window() -> None:
    copy = Copy(Link(latency=0.005, rate=500e6))
    copy.run(5)
    copy.link.latency = 0.05
    copy.run(2 * LAST_HOLD)
    assert copy.window > product(copy.link)


def test_a_link_that_becomes_shorter_gets_a_smaller_window() -> None:
    copy = Copy(Link(latency=0.05, rate=500e6))
    copy.run(5)
    copy.link.latency = 0.005
    copy.run(2 * LAST_HOLD)
    assert copy.window < 4 * product(copy.link)


def test_all_threads_of_a_slow_server_have_work() -> None:
    """A server that needs 10 ms for each read, and has 32 threads: 800 MiB/s, no latency."""
    copy = Copy(Link(latency=50e-6, rate=10e9, cost=0.01, threads=32))
    copy.run(2)
    assert copy.run(30) > 0.95 * 800 * MiB
    assert copy.window <= 4 * 32 * READ


def test_a_server_that_takes_one_after_the_other_is_not_flooded() -> None:
    copy = Copy(Link(latency=0.001, rate=10e9, cost=0.01))
    copy.run(10)
    assert copy.window <= 2 * SMALLEST
    assert copy.run(30) > 0.97 * READ / 0.01


def test_a_server_whose_answers_take_very_different_times_is_kept_busy() -> None:
    """Three of four reads are in its cache: the shortest latency tells little."""

    class Cached(Link):
        def ready(self, now: float) -> float:
            self.turns += 1
            self.cost = 0.01 if self.turns % 4 == 0 else 0.0003
            return super().ready(now)

        turns = 0

    link = Cached(latency=50e-6, rate=10e9, threads=32)
    mean = (0.01 + 3 * 0.0003) / 4
    copy = Copy(link, guess=mean)
    copy.run(5)
    assert copy.run(20) > 0.9 * 32 * READ / mean


@pytest.mark.parametrize("connections", [2, 4, 8])
def test_connections_that_share_a_link_do_not_outbid_each_other(connections: int) -> None:
    copy = Copy(Link(latency=0.02, rate=500e6), connections=connections)
    copy.run(20)
    windows = []
    for _ in range(10):
        assert copy.run(3) > 0.95 * 500e6
        windows.append(copy.window)
    assert max(windows) < 10 * product(copy.link)  # 250 times would be the largest


def test_where_the_longer_queue_gets_more_of_a_link_the_windows_are_bounded_and_it_is_full() -> (
    None
):
    copy = Copy(Link(latency=0.02, rate=500e6, fair=False), connections=4)
    copy.run(10)
    assert copy.run(20) > 0.97 * 500e6
    assert copy.window <= 4 * LARGEST


def test_bounds_hold() -> None:
    copy = Copy(Link(latency=0.5, rate=10 * GiB))
    for _ in range(20):
        copy.run(0.5)
        assert SMALLEST <= copy.window <= LARGEST
    assert copy.window == LARGEST
    assert Window(0.0, smallest=2 * MiB, largest=1 * MiB).size == 2 * MiB
