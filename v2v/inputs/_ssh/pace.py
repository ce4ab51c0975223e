"""Whether data is compressed for the way here: arithmetic on what arrived, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

from v2v.types import MiB

PERIOD_SECONDS = 0.5  # and at least so many bytes are one measurement
PERIOD_BYTES = 4 * MiB
GAIN = 1.2  # compression must bring so much more than none, and no less later: it costs CPU
SMALLER = 0.9  # and less must be sent: else it was the weather that changed
# A link that is faster than this carries more than the processors of a host compress for us.
FAST = 200 * MiB  # bytes/s
FIRST_REST, LONGEST_REST = 5.0, 80.0  # seconds between two trials of what is not in use


@dataclass(slots=True)
class Pace:
    """Asks for plain data and for compressed data in turns, and goes on with what is faster.

    Faster is what brings more bytes of files per second while somebody waits for them; zeroes do
    not count, they cost nothing. So a slow link, idle processors and data that can be compressed
    make for compression, whichever of them is the limit. Times are those of one clock, in seconds.
    """

    packing: bool = False  # what to ask for now
    _trial: bool = False
    _plain_or_packed: tuple[float, float] = (0.0, 0.0)  # bytes/s, as measured last
    _rest: float = 0.0  # seconds until the next trial
    _next_rest: float = FIRST_REST
    _asked: list[int] = field(default_factory=lambda: [0, 0])  # under way: plain, packed
    _measuring: bool = False  # since nothing else is under way than what is asked for now
    _since: float = 0.0
    _busy: float = 0.0
    _bytes: int = 0
    _sent: int = 0

    def ask(self, now: float) -> None:
        """A request is sent."""
        if not any(self._asked):
            self._since = now
        self._asked[self.packing] += 1

    def answer(self, now: float, count: int, sent: int, *, packed: bool) -> None:
        """It is answered: `sent` bytes for `count` that are not zero. `packed`: as asked for."""
        self._asked[packed] -= 1
        if packed != self.packing or self._asked[not packed]:
            return
        if self._measuring:
            self._busy += now - self._since
            self._bytes += count
            self._sent += sent
        self._measuring, self._since = True, now
        if self._busy >= PERIOD_SECONDS and self._bytes >= PERIOD_BYTES:
            self._decide(self._bytes / self._busy)

    def _decide(self, rate: float) -> None:
        plain, packed = self._plain_or_packed
        plain, packed = (plain, rate) if self.packing else (rate, packed)
        self._plain_or_packed = plain, packed
        self._rest -= self._busy
        if self._trial:
            better = packed >= GAIN * plain
            if self.packing:
                better = better and self._sent <= SMALLER * self._bytes
            self._end_trial(stay=better == self.packing)
        elif self._rest <= 0 and (self.packing or rate < FAST):
            self._trial, self.packing = True, not self.packing
        self._measuring, self._busy, self._bytes, self._sent = False, 0.0, 0, 0

    def _end_trial(self, *, stay: bool) -> None:
        self._trial = False
        self._next_rest = FIRST_REST if stay else min(2 * self._next_rest, LONGEST_REST)
        self._rest = self._next_rest
        if not stay:
            self.packing = not self.packing
