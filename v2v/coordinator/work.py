"""The work of copying one disk: its ledger, its digests, and its passes over source and overlay."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from v2v.coordinator.parts import OpenDisk, Parts
from v2v.copy.digests import CHUNK, Digests
from v2v.copy.engine import DiskCopy, Shared
from v2v.copy.ledger import Ledger
from v2v.copy.sinks import Sink
from v2v.output import digests_path, ledger_path
from v2v.run import Run
from v2v.types import CopyResult


class DiskWork:
    """What is needed to copy one disk."""

    def __init__(self, disk: OpenDisk, parts: Parts, copy: DiskCopy, grain: int) -> None:
        self.parts = parts
        self._copy = copy
        self._disk = disk
        self._grain = grain
        self._seconds = 0.0  # at work, not waiting for the conversion

    def from_source(self) -> None:
        with self._timed():
            self._copy.copy(self._disk.source, self.parts.of_source(self._grain), phase="source")

    def from_overlay(self) -> None:
        extents = tuple(self.parts.of_overlay(self._grain))
        if extents:
            with self._timed():
                self._copy.copy(self._disk.overlay, extents, phase="overlay")

    def finish(self) -> CopyResult:
        with self._timed():
            result = self._copy.finish()
        return replace(result, seconds=self._seconds)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds += time.monotonic() - began


@contextmanager
def open_work(
    index: int, disk: OpenDisk, parts: Parts, sink: Sink, shared: Shared, run: Run
) -> Iterator[DiskWork]:
    """Go on with disk `index` where its ledger ends. To be called once its sink is connected."""
    size = disk.source.size
    ledger = Ledger(ledger_path(run, index))
    with ExitStack() as stack:
        digests, grain = None, sink.alignment
        if shared.options.verify:
            digests = _open_digests(digests_path(run, index), size, ledger)
            stack.callback(digests.close)
            grain = math.lcm(grain, CHUNK)  # chunks are hashed whole
        copy = DiskCopy(index, size, sink, shared, ledger=ledger, digests=digests)
        yield DiskWork(disk, parts, copy, grain)


def _open_digests(path: Path, size: int, ledger: Ledger) -> Digests:
    """What was copied without digests, or with some that are lost, is copied again."""
    if not path.exists():
        ledger.clear()
    digests = Digests(path, size)
    if not digests.continued:
        ledger.clear()
    return digests
