"""The threads of one pass: readers that fill units and write them, and writers that help them.

A reader has a connection of its own. It writes what it has filled by itself, which keeps the data
in its processor's cache; only where writing is slow does it hand units to writers, so that the
connection does not wait. How many of both are worth while is found out as the copy goes on.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from v2v.cancel import Cancel, raise_cause
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.fetch import POLL_SECONDS, Fetcher, Filling
from v2v.copy.memory import Memory
from v2v.copy.plan import Step, Unit, Zero
from v2v.copy.progress import Meter
from v2v.copy.sinks import StreamingSink, is_streaming
from v2v.copy.stream import Feed, requests
from v2v.copy.target import Target
from v2v.endpoint import Endpoint
from v2v.extents import Extent
from v2v.job import CopyOptions

FIRST_READERS = min(max(os.cpu_count() or 1, 2), 4)  # more do not help where nothing is far away
MOST_READERS = 8
MOST_WRITERS = 8  # more have not made any server faster
LOOK_SECONDS = 0.25  # between two looks at how it goes
GAIN = 1.1  # what one more reader must bring
SLOW_READ = 0.004  # seconds: below, one connection is as good as several
SLOW_WRITE = 0.004
PROC_STAT = Path("/proc/stat")
IDLE_SHARE = 0.2  # of the host's processors


class Processors:
    """Whether the host has processors to spare; if not, more threads only get in the way."""

    def __init__(self) -> None:
        self._idle, self._all = self._look()

    def idle(self) -> bool:
        """Since it was last asked."""
        before, (self._idle, self._all) = (self._idle, self._all), self._look()
        return self._idle - before[0] > IDLE_SHARE * (self._all - before[1])

    @staticmethod
    def _look() -> tuple[int, int]:
        """Ticks of all processors: idle or waiting for disks, and all; proc_stat(5)."""
        with PROC_STAT.open(encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)


class Crew:
    """Does the steps of one pass. `run` returns when all are done, or raises what stopped them."""

    def __init__(
        self,
        disk: int,
        endpoint: Endpoint,
        target: Target,
        *,
        options: CopyOptions,
        memory: Memory,
        bandwidth: Bandwidth,
        meter: Meter,
        stop: Cancel,
        unit: int,
        slow_target: bool,
        gently: Callable[[], bool],
    ) -> None:
        """`slow_target`: writes are known to take long, so that writers help from the beginning.

        While `gently` says so, each reader has one unit in flight only.
        """
        self._disk = disk
        self._endpoint = endpoint
        self._target = target
        self._options = options
        self._memory = memory
        self._bandwidth = bandwidth
        self._meter = meter
        self._stop = stop
        self._unit = unit
        self._lock = threading.Lock()
        self._steps: Iterator[Step] = iter(())
        self._full: queue.SimpleQueue[Filling | None] = queue.SimpleQueue()
        self._readers: list[threading.Thread] = []
        self._writers: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._moved = 0  # bytes
        self._slow_target = slow_target
        self._gently = gently
        self._writes, self._write_seconds = 0, 0.0
        self._latency = 0.0  # of a read, lately

    def run(self, steps: Iterator[Step]) -> None:
        self._steps = steps
        try:
            for _ in range(self._first_readers()):
                self._start(self._read, self._readers)
            if self._slow_target:
                self._add_writers()
            self._watch()
        except BaseException:
            self._stop.cancel()
            raise
        finally:
            for thread in self._readers:
                thread.join()
            for _ in self._writers:
                self._full.put(None)
            for thread in self._writers:
                thread.join()
            self._memory.reclaim(self._disk)
            self._target.tally.raise_to(connections=len(self._readers))
        raise_cause(self._errors)

    # How many ------------------------------------------------------------------------------------

    def _first_readers(self) -> int:
        sink = self._target.sink
        if sink.ordered or not self._may_connect_again():
            return 1
        if is_streaming(sink):  # a request of its own for each, for which the server is far away
            return min(self._options.connections or MOST_READERS, sink.workers)
        return self._options.connections or FIRST_READERS

    def _most_readers(self) -> int:
        """One that streams holds a connection to the target, too."""
        sink = self._target.sink
        return min(sink.workers, MOST_READERS) if is_streaming(sink) else MOST_READERS

    def _may_connect_again(self) -> bool:
        return self._endpoint.multi_conn or self._endpoint.file is not None

    def _watch(self) -> None:
        """Add threads while it helps, until the readers are done."""
        rate = 0.0  # before the last reader came
        moved, since, processors = 0, time.monotonic(), Processors()
        growing, most = self._may_grow(), self._most_readers()
        for thread in self._readers:  # grows meanwhile
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                now = time.monotonic()
                if now - since < LOOK_SECONDS or not processors.idle():
                    continue
                if self.is_target_slow():
                    self._add_writers()
                now_rate = (self._moved - moved) / (now - since)
                moved, since = self._moved, now
                growing = growing and now_rate >= rate * GAIN
                if self._gently():
                    continue
                if growing and self._latency > SLOW_READ and len(self._readers) < most:
                    rate = now_rate
                    self._start(self._read, self._readers)

    def _may_grow(self) -> bool:
        return self._options.connections is None and self._first_readers() > 1

    def is_target_slow(self) -> bool:
        """Whether a write took long, on average since it was last asked."""
        with self._lock:
            seconds = self._write_seconds / self._writes if self._writes else 0.0
            self._writes, self._write_seconds = 0, 0.0
        return seconds > SLOW_WRITE

    def _add_writers(self) -> None:
        sink = self._target.sink
        most = 0 if sink.ordered else min(sink.workers, MOST_WRITERS)
        while len(self._writers) < most and not self._stop.cancelled:
            self._start(self._write, self._writers)

    def _start(self, work: Callable[[], None], threads: list[threading.Thread]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 - raised again by `run`
                with self._lock:
                    self._errors.append(exc)
                self._stop.cancel()

        name = f"disk {self._disk + 1} {work.__name__.strip('_')} {len(threads) + 1}"
        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        threads.append(thread)

    # Readers -------------------------------------------------------------------------------------

    def _read(self) -> None:
        fetcher = Fetcher(
            self._disk,
            self._endpoint,
            requests=self._options.requests,
            largest=self._memory.total,
            stall=self._options.stall_timeout,
            stop=self._stop,
        )
        try:
            if is_streaming(self._target.sink):
                self._stream(self._target.sink, fetcher)
            else:
                self._fill(fetcher)
        finally:
            fetcher.close()
            self._target.tally.add(retries=fetcher.retries)
            self._target.tally.raise_to(read_size=min(fetcher.read_size, self._unit))

    def _fill(self, fetcher: Fetcher) -> None:
        ordered: deque[Filling | Zero] | None = deque() if self._target.sink.ordered else None
        more = True
        while more or fetcher.flying or fetcher.full or ordered:
            self._stop.check()
            if more:
                more = self._top_up(fetcher, ordered)
            if not self._hand_on(fetcher, ordered):
                self._wait(fetcher, more)

    def _stream(self, sink: StreamingSink, fetcher: Fetcher) -> None:
        feed = Feed(
            self._parts(sink),
            fetcher,
            self._target,
            self._memory,
            owner=self._disk,
            pace=self._pace,
            may_ask=self._may_ask_ahead,
            moved=self._streamed,
            stop=self._stop,
        )
        while (part := feed.next()) is not None:
            if isinstance(part, Zero):
                self._zero(part)
            else:
                self._target.stream(sink, part, feed, skipped=feed.skip_zeroes())
            self._latency = fetcher.latency

    def _parts(self, sink: StreamingSink) -> Iterator[Step]:
        """The requests of one reader, as it comes to them."""
        alignment, size = self._target.alignment(self._endpoint.minimum_block), self._endpoint.size
        while (step := self._next()) is not None:
            if isinstance(step, Zero):
                yield step
            else:
                yield from requests(step, grain=sink.zero_grain, alignment=alignment, size=size)

    def _streamed(self, data: int) -> None:
        with self._lock:
            self._moved += data
        self._meter.add(data)

    def _top_up(self, fetcher: Fetcher, ordered: deque[Filling | Zero] | None) -> bool:
        """Ask for as much as should be in flight. False: there is no more to ask for."""
        while self._may_ask(fetcher):
            buffer = self._memory.take(self._unit, owner=self._disk)
            if buffer is None:
                return True
            step = self._next()
            if not isinstance(step, Unit):
                self._memory.give_back(buffer)
                if step is None:
                    return False
                if ordered:
                    ordered.append(step)
                else:
                    self._zero(step)
                continue
            filling = Filling(step, buffer)
            self._target.fill(step, buffer)
            self._pace(fetcher, filling.data)
            if ordered is not None:
                ordered.append(filling)
            fetcher.fetch(filling)
        return True

    def _may_ask(self, fetcher: Fetcher) -> bool:
        if fetcher.full or not fetcher.has_room(self._unit):
            return False
        return self._may_ask_ahead(fetcher)

    def _may_ask_ahead(self, fetcher: Fetcher) -> bool:
        return not (self._gently() and fetcher.flying)

    def _next(self) -> Step | None:
        with self._lock:
            return next(self._steps, None)

    def _pace(self, fetcher: Fetcher, length: int) -> None:
        """Wait as the limit on the bandwidth demands, while reads come back."""

        def wait(seconds: float) -> None:
            self._stop.check()
            if fetcher.flying:
                fetcher.wait(seconds)
            else:
                self._stop.wait(seconds)

        self._bandwidth.pause(length, wait)

    def _wait(self, fetcher: Fetcher, more: bool) -> None:
        if fetcher.flying:
            fetcher.wait(POLL_SECONDS)
            self._latency = fetcher.latency
        elif more:
            self._memory.wait(POLL_SECONDS)

    def _hand_on(self, fetcher: Fetcher, ordered: deque[Filling | Zero] | None) -> bool:
        """Write one unit, or have it written. False: none is due."""
        if ordered is not None:
            return self._hand_on_first(fetcher, ordered)
        if not fetcher.full:
            return False
        filling = fetcher.full.popleft()
        if self._writers:
            self._full.put(filling)
        else:
            self._put(filling)
        return True

    def _hand_on_first(self, fetcher: Fetcher, ordered: deque[Filling | Zero]) -> bool:
        """The same in disk order."""
        if not ordered:
            return False
        first = ordered[0]
        if isinstance(first, Zero):
            self._zero(first)
        elif first in fetcher.full:
            fetcher.full.remove(first)
            self._put(first)
        else:
            return False
        ordered.popleft()
        return True

    # Writing -------------------------------------------------------------------------------------

    def _write(self) -> None:
        while (filling := self._full.get()) is not None:
            self._stop.check()
            self._put(filling)

    def _put(self, filling: Filling) -> None:
        began = time.monotonic()
        self._target.put(filling.unit, filling.view, filling.data)
        self._memory.give_back(filling.buffer)
        with self._lock:
            self._moved += filling.data
            self._writes += 1
            self._write_seconds += time.monotonic() - began
        self._meter.add(filling.data)

    def _zero(self, step: Zero) -> None:
        self._target.zero(Extent(step.offset, step.length, zero=True))
