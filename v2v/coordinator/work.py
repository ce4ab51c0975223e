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
from v2v.copy.kept import check_kept
from v2v.copy.ledger import Ledger
from v2v.copy.sinks import Sink
from v2v.errors import TargetError
from v2v.nbd_client import ExportReader
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


def check_target(index: int, disk: OpenDisk, parts: Parts, sink: Sink, run: Run) -> None:
    """Refuse a target that does not hold what an earlier run of the job wrote to it."""
    ledger = Ledger(ledger_path(run, index))
    if not ledger:
        return
    try:
        with ExportReader(disk.source, f"disk {index + 1}") as reader:
            at = check_kept(ledger, parts.of_source(1), reader.read, sink)
    except OSError as exc:
        raise TargetError(
            f"disk {index + 1}: what is at the target already cannot be read: {exc.strerror}",
            id="target-unreachable",
            hint=f"when that is repaired, continue with `v2v resume {run.job_id}`",
        ) from exc
    if at is not None:
        raise TargetError(
            f"disk {index + 1}: the target does not hold what was copied to it: byte {at} and "
            "those after it differ from the source",
            id="target-changed",
            hint="is it the same disk as before? If that is gone, convert the VM anew",
        )


def _open_digests(path: Path, size: int, ledger: Ledger) -> Digests:
    """What was copied without digests, or with some that are lost, is copied again."""
    if not path.exists():
        ledger.clear()
    digests = Digests(path, size)
    if not digests.continued:
        ledger.clear()
    return digests
