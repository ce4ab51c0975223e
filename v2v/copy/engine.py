"""The copy engine: brings what an endpoint holds onto a sink, pass by pass.

docs/copy-engine.md explains it with a picture.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import merge as merge_sorted
from typing import TypeAlias

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.clone import clone
from v2v.copy.crew import Crew
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.failures import failure
from v2v.copy.fetch import RETRY_SECONDS
from v2v.copy.ledger import Ledger
from v2v.copy.memory import Memory
from v2v.copy.plan import plan, request_size
from v2v.copy.progress import Progress
from v2v.copy.sinks import Sink, SinkLost, is_streaming
from v2v.copy.target import Target
from v2v.copy.verify import verify
from v2v.endpoint import Endpoint
from v2v.errors import CopyError, SourceError
from v2v.extents import Extent, ExtentMap, Ranges, clip, data_bytes, intersect, subtract, widen
from v2v.job import CopyOptions
from v2v.types import CopyResult, MiB

log = logging.getLogger(__name__)

MEMORY = 128 * MiB  # for the data of all disks in flight
REQUEST = 1 * MiB  # bytes per write where the sink has no preference
LONG_REQUEST = 8 * MiB  # the same where a trial showed that requests cost much: 20 ms, for example
TRIAL = 8 * MiB  # bytes of the disk that are copied to find that out

Extents: TypeAlias = "ExtentMap | Remaining | tuple[Extent, ...]"  # for any number of loops


class Shared:
    """What all disks of a run have in common: the options, one budget, one limit, one display."""

    def __init__(
        self,
        options: CopyOptions,
        *,
        cancel: Cancel,
        progress: Progress,
        bandwidth: Bandwidth | None = None,
        memory: Memory | None = None,
        gently: Callable[[], bool] = lambda: False,
    ) -> None:
        """While `gently` says so, somebody else needs the source more, and waits for it."""
        self.options = options
        self.cancel = cancel
        self.progress = progress
        self.bandwidth = bandwidth or Bandwidth(options.bandwidth)
        self.memory = memory or Memory(MEMORY)
        self.gently = gently


def measure(
    endpoint: Endpoint, cancel: Cancel | None = None, *, stall: float | None = None
) -> ExtentMap:
    """Where the disk holds data. A server that is silent for `stall` seconds is asked again.

    Raises SourceError when it is gone, or silent, for long.
    """
    cancel = cancel or Cancel()
    for pause in RETRY_SECONDS:
        try:
            return ExtentMap(nbd_client.extents(endpoint, cancel=cancel, stall=stall))
        except SourceError:
            cancel.wait(pause)
    return ExtentMap(nbd_client.extents(endpoint, cancel=cancel, stall=stall))


def copy_disk(
    disk: int,
    endpoint: Endpoint,
    sink: Sink,
    shared: Shared,
    *,
    ledger: Ledger | None = None,
    digests: Digests | None = None,
) -> CopyResult:
    """Copy a whole disk in one pass. Raises as DiskCopy does."""
    job = DiskCopy(disk, endpoint.size, sink, shared, ledger=ledger, digests=digests)
    job.copy(endpoint, measure(endpoint, shared.cancel, stall=shared.options.stall_timeout))
    return job.finish()


class DiskCopy:
    """One disk, `disk` counted from 0. Calls come from one thread at a time.

    `ledger` knows what an earlier run has brought onto the target, and learns what this one does.
    With `digests` the whole content is hashed as it passes. Errors name disk and range: CopyError,
    and Cancelled.
    """

    def __init__(
        self,
        disk: int,
        size: int,
        sink: Sink,
        shared: Shared,
        *,
        ledger: Ledger | None = None,
        digests: Digests | None = None,
    ) -> None:
        if shared.options.verify and digests is None:
            raise ValueError("there is nothing to verify with: no digests are kept")
        self._disk = disk
        self._size = size
        self._sink = sink
        self._shared = shared
        self._ledger = ledger if ledger is not None else Ledger(None)
        self._digests = digests
        self._resumed = self._ledger.touched().length
        self._meter = shared.progress.meter(disk)
        self._began = time.monotonic()
        self._done = self._total = 0  # bytes of data, over all passes
        self._passes: list[tuple[Endpoint, Extents, str]] = []
        preferred = shared.options.request_size or sink.request_size
        self._is_trial = preferred is None and not is_streaming(sink)
        self._slow_target = False
        self._notes: list[str] = []
        self._target = Target(
            disk,
            size,
            sink,
            self._ledger,
            digests,
            request=self._request_size(preferred),
        )

    def copy(self, endpoint: Endpoint, extents: Iterable[Extent], *, phase: str = "source") -> None:
        """One pass: everything that belongs there, of which the ledger may have some already.

        `extents` may leave ranges out: what they hold on the target stays. Where it does, its edges
        are multiples of the sink's alignment, and of CHUNK with digests. When this returns all of
        it is durable.
        """
        known = extents if isinstance(extents, ExtentMap) else tuple(extents)
        self._passes.append((endpoint, known, phase))
        self._complete(partial(self._copy, endpoint, known, phase))

    def finish(self) -> CopyResult:
        """Compare the target with what was read, as far as the options ask. Gives what it took."""
        options = self._shared.options
        if options.verify and self._digests is not None:  # the constructor saw to it
            self._verify(self._digests, options.verify)
        tally = self._target.tally
        zero = max(self._size - tally.data - self._resumed, 0)
        return CopyResult(
            disk=self._disk,
            size=self._size,
            data=tally.data,
            zero=zero,
            seconds=time.monotonic() - self._began,
            found_zero=tally.found_zero,
            by_kernel=tally.by_kernel,
            resumed=self._resumed,
            retries=tally.retries,
            connections=tally.connections,
            read_size=tally.read_size,
            write_size=tally.write_size,
            checksum=self._digests.root() if self._digests is not None else None,
            verified=options.verify,
            notes=(*getattr(self._sink, "notes", ()), *self._notes),
        )

    def _request_size(self, preferred: int | None) -> int:
        """Bytes per write."""
        # Of a buffer: some are filled while others are written.
        most = sys.maxsize if is_streaming(self._sink) else self._shared.memory.total // 4
        return request_size(
            preferred,
            REQUEST,
            maximum=min(self._sink.max_request, most),
            alignment=self._sink.alignment,
        )

    @property
    def _unit(self) -> int:
        """Bytes that are read, hashed and looked through together."""
        request = self._target.request
        return _round_up(request, CHUNK) if self._digests is not None else request

    # A pass --------------------------------------------------------------------------------------

    def _complete(self, attempt: Callable[[], None]) -> None:
        """Do it again from the last flush whenever the target was lost in between."""
        losses, durable = 0, -1
        while True:
            try:
                attempt()
                return
            except SinkLost as exc:
                self._target.lost()
                self._target.tally.add(retries=1)
                reached = self._ledger.touched().length
                losses = losses + 1 if reached == durable else 1
                durable = reached
                if losses > len(RETRY_SECONDS):
                    raise failure(self._disk, "write", 0, self._size, exc) from exc
                self._reopen(exc, RETRY_SECONDS[losses - 1 :])

    def _reopen(self, error: OSError, pauses: tuple[float, ...]) -> None:
        for pause in pauses:
            self._shared.cancel.wait(pause)
            try:
                self._sink.reopen()
                return
            except SinkLost as exc:
                error = exc
        raise failure(self._disk, "write", 0, self._size, error) from error

    def _copy(self, endpoint: Endpoint, extents: Extents, phase: str) -> None:
        """Copy what the ledger does not have yet."""
        stop = Cancel()
        self._target.begin(phase, stop)  # before the ledger forgets what may need zeroing
        alignment = self._target.alignment(endpoint.minimum_block)
        done = Ranges(self._narrow(phase, alignment))
        whole = _in_blocks(extents, endpoint.minimum_block, self._size)
        todo = Remaining(whole, done) if done else whole
        self._take_back(phase, todo)
        self._total = self._done + data_bytes(todo)
        self._meter.begin("copy", self._total, done=self._done)
        with self._shared.cancel.calling(stop.cancel):
            if endpoint.file is not None and self._digests is None:
                cloned = clone(
                    endpoint.file,
                    todo,
                    self._target,
                    bandwidth=self._shared.bandwidth,
                    meter=self._meter,
                    stop=stop,
                )
                todo = Remaining(todo, cloned) if cloned else todo
            for part in self._in_turn(todo):
                unit = _round_up(self._unit, alignment)
                crew = self._crew(endpoint, unit, stop)
                crew.run(plan(part, unit=unit, alignment=alignment, size=self._size))
                self._learn(crew)
        self._target.checkpoint()
        self._done = self._total
        self._meter.finish()

    def _take_back(self, phase: str, todo: Extents) -> None:
        """What is about to be written over counts for no other phase: we may die in between."""
        if others := self._ledger.done_otherwise(phase):
            self._ledger.forget(intersect(todo, others))

    def _crew(self, endpoint: Endpoint, unit: int, stop: Cancel) -> Crew:
        return Crew(
            self._disk,
            endpoint,
            self._target,
            options=self._shared.options,
            memory=self._shared.memory,
            bandwidth=self._shared.bandwidth,
            meter=self._meter,
            stop=stop,
            unit=unit,
            slow_target=self._slow_target,
            gently=self._shared.gently,
        )

    def _in_turn(self, todo: Extents) -> Iterator[Iterable[Extent]]:
        """All at once; but where the size of writes is ours to choose, a little first."""
        if not self._is_trial:
            yield todo
            return
        start = next((extent.offset for extent in todo if not extent.zero), 0)
        border = _round_up(start + TRIAL, LONG_REQUEST)
        yield clip(todo, 0, border)
        yield clip(todo, border, self._size)

    def _learn(self, crew: Crew) -> None:
        """A request that takes long whatever its size should be a long one."""
        if self._is_trial and crew.is_target_slow():
            self._slow_target = True
            self._target.request = self._request_size(LONG_REQUEST)
        self._is_trial = False

    def _narrow(self, phase: str, alignment: int) -> Iterator[Extent]:
        """What the ledger has, in whole blocks: a part of one is copied again."""
        for extent in self._ledger.done(phase):
            start = _round_up(extent.offset, alignment)
            end = extent.end if extent.end == self._size else extent.end // alignment * alignment
            if start < end:
                yield Extent(start, end - start)

    # Verification --------------------------------------------------------------------------------

    def _verify(self, digests: Digests, fraction: float) -> None:
        compare = partial(
            verify,
            self._sink,
            digests,
            self._size,
            disk=self._disk,
            cancel=self._shared.cancel,
            meter=self._meter,
        )
        wrong = compare(fraction=fraction)
        if not wrong:
            return
        if fraction < 1:
            wrong = compare(fraction=1.0)
        log.warning("disk %d: the target differs at %s; written again", self._disk + 1, wrong)
        self._notes.append(f"{data_bytes(wrong)} bytes differed when read back; written again")
        self._target.lost()
        self._target.tally.add(retries=1)
        self._ledger.forget(wrong)  # a job that dies now must do it again, pass by pass
        for endpoint, extents, phase in self._passes:
            part = tuple(intersect(extents, wrong))
            self._complete(partial(self._copy, endpoint, part, phase))
        if wrong := compare(fraction=1.0):
            self._ledger.forget(wrong)
            raise CopyError(
                f"disk {self._disk + 1}: bytes {wrong[0].offset} to {wrong[0].end - 1} of the "
                "target are not what was written, nor after they were written again; "
                f"{data_bytes(wrong)} bytes differ in all",
                id="verify-mismatch",
                hint="suspect the target's storage or memory; do not use this copy",
            )


class Remaining:
    """The parts of `extents` that are not in `done`: computed again by each loop, not kept."""

    def __init__(self, extents: Extents, done: Ranges) -> None:
        self._extents = extents
        self._done = done

    def __iter__(self) -> Iterator[Extent]:
        return subtract(self._extents, self._done)


def _in_blocks(extents: Extents, block: int, size: int) -> Extents:
    """The extents with their data in whole blocks, which is all that some servers read."""
    if block == 1:
        return extents

    def data() -> Iterator[Extent]:
        return widen((extent for extent in extents if not extent.zero), block, size)

    zeroes = subtract((extent for extent in extents if extent.zero), data())
    found = merge_sorted(data(), zeroes, key=lambda extent: extent.offset)
    return ExtentMap(found) if isinstance(extents, ExtentMap) else tuple(found)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
