"""How far the copy is: of each disk and of all of them, with the rate and the time left."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

TELL_SECONDS = 0.25  # between two tellings, over all disks
RATE_SECONDS = 5.0  # the rate is of so long
KNOWN_SECONDS = 1.0  # before that, a rate says nothing of the time left
COPY = "copy"  # the phase that counts for all disks together


@dataclass(frozen=True, slots=True)
class Standing:
    """Bytes, bytes per second, seconds. `eta` is the time left, None while it is not known."""

    disk: int
    phase: str
    done: int
    total: int
    rate: float
    eta: float | None
    all_done: int
    all_total: int
    all_rate: float
    all_eta: float | None


class _Speed:
    """The rate over the last RATE_SECONDS."""

    def __init__(self, now: float) -> None:
        self._moved = 0
        self._samples = deque([(now, 0)])  # when, and what had moved

    def add(self, length: int, now: float) -> None:
        self._moved += length
        if now - self._samples[-1][0] >= TELL_SECONDS:
            self._samples.append((now, self._moved))
        while len(self._samples) > 1 and self._samples[1][0] <= now - RATE_SECONDS:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        since, moved = self._samples[0]
        return (self._moved - moved) / (now - since) if now > since else 0.0

    def eta(self, left: int, now: float) -> float | None:
        if left <= 0:
            return 0.0
        rate = self.rate(now)
        known = now - self._samples[0][0] >= KNOWN_SECONDS and rate > 0
        return left / rate if known else None


class Progress:
    """All disks of a run. `tell` is called by the thread that added, one at a time.

    At most once in TELL_SECONDS, but for the beginning and the end of each phase of a disk.
    """

    def __init__(
        self, tell: Callable[[Standing], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._meters: dict[int, Meter] = {}
        self._speed = _Speed(clock())
        self._told = -math.inf

    def meter(self, disk: int) -> Meter:
        """The one of that disk."""
        with self._lock:
            return self._meters.setdefault(disk, Meter(self, disk, self._clock()))

    def _begin(self, meter: Meter, phase: str, total: int, done: int) -> None:
        with self._lock:
            now = self._clock()
            if not any(other.busy for other in self._meters.values()):
                self._speed = _Speed(now)
            meter.begin_at(now, phase, total, done)
            if done < total:  # else its end is near
                self._say(meter, now)

    def _add(self, meter: Meter, length: int) -> None:
        with self._lock:
            now = self._clock()
            meter.add_at(now, length)
            if meter.phase == COPY:
                self._speed.add(length, now)
            meter.news = meter.done < meter.total  # the last one is told by `finish`
            if meter.news and now - self._told >= TELL_SECONDS:
                longest = min(self._with_news(), key=lambda other: other.told)
                self._say(longest, now)

    def _finish(self, meter: Meter) -> None:
        with self._lock:
            meter.end()
            self._say(meter, self._clock())

    def _with_news(self) -> list[Meter]:
        return [meter for meter in self._meters.values() if meter.news]

    def _say(self, meter: Meter, now: float) -> None:
        self._told = meter.told = now
        meter.news = False
        all_done = sum(other.copied for other in self._meters.values())
        all_total = sum(other.to_copy for other in self._meters.values())
        self._tell(
            Standing(
                disk=meter.disk,
                phase=meter.phase,
                done=meter.done,
                total=meter.total,
                rate=meter.speed.rate(now),
                eta=meter.speed.eta(meter.total - meter.done, now),
                all_done=all_done,
                all_total=all_total,
                all_rate=self._speed.rate(now),
                all_eta=self._speed.eta(all_total - all_done, now),
            )
        )


class Meter:
    """One disk. `begin`, `add` and `finish` are for any thread."""

    def __init__(self, progress: Progress, disk: int, now: float) -> None:
        self._progress = progress
        self.disk = disk
        self.phase = COPY
        self.done = self.total = 0
        self.copied = self.to_copy = 0  # of the copy phase
        self.busy = False  # copies now
        self.told = now  # when it was told of
        self.news = False  # since then
        self.speed = _Speed(now)

    def begin(self, phase: str, total: int, *, done: int = 0) -> None:
        """A phase, "copy" or "verify", of `total` bytes, of which `done` were done before."""
        self._progress._begin(self, phase, total, done)

    def add(self, length: int) -> None:
        self._progress._add(self, length)

    def finish(self) -> None:
        """The phase is over, and complete."""
        self._progress._finish(self)

    def begin_at(self, now: float, phase: str, total: int, done: int) -> None:
        self.phase, self.total, self.done = phase, total, done
        self.busy, self.news = phase == COPY, False
        self.speed = _Speed(now)
        self._count()

    def add_at(self, now: float, length: int) -> None:
        self.done += length
        self.total = max(self.total, self.done)
        self.speed.add(length, now)
        self._count()

    def end(self) -> None:
        self.done = self.total
        self.busy = False
        self._count()

    def _count(self) -> None:
        if self.phase == COPY:
            self.copied, self.to_copy = self.done, self.total
