"""Disks that were there before the job: whether they are still those that it wrote to.

A server may have been started with another disk, or the system call another device by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from v2v.coordinator.parts import OpenDisk, Parts
from v2v.copy.kept import SAMPLE, check_kept
from v2v.copy.ledger import Ledger
from v2v.copy.sinks import Sink
from v2v.errors import TargetError
from v2v.extents import Extent
from v2v.nbd_client import ExportReader
from v2v.output import copy_options, is_comparable, ledger_path
from v2v.run import Run
from v2v.targets import probes

SECTOR = 512  # bytes: what a disk writes whole, or not at all

Read = Callable[[int, int], bytes]


def check_target(
    index: int, disk: OpenDisk, parts: Parts, sink: Sink, run: Run, *, was_blank: bool
) -> None:
    """Refuse a target that does not hold what an earlier run of the job wrote to it.

    was_blank: it held nothing before.
    """
    if not ledger_path(run, index).exists():
        return
    ledger = Ledger(ledger_path(run, index))
    try:
        if ledger:
            with _reader(index, disk, run, converted=False) as reader:
                at = check_kept(ledger, parts.of_source(1), reader.read, sink)
        elif was_blank and is_comparable(run, index):
            with (
                _reader(index, disk, run, converted=False) as source,
                _reader(index, disk, run, converted=True) as guest,
            ):
                at = _stranger(disk.source.size, parts, (_zeroes, source.read, guest.read), sink)
        else:
            return
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


def _reader(index: int, disk: OpenDisk, run: Run, *, converted: bool) -> ExportReader:
    return ExportReader(
        disk.overlay if converted else disk.source,
        f"disk {index + 1}",
        cancel=run.cancel,
        stall=copy_options(run).stall_timeout,
    )


def _stranger(size: int, parts: Parts, reads: Sequence[Read], sink: Sink) -> int | None:
    """Where the target holds what the job has not written, of which nothing is recorded yet.

    That is what none of `reads` gives. Looked at are places in all of the disk, and of its data.
    """
    for offset, length in {*probes(size, [Extent(0, size)]), *probes(size, parts.of_source(1))}:
        start = offset - offset % SAMPLE
        there = bytearray(min(offset + length, size) - start)
        sink.read_back(start, memoryview(there))
        strange = list(range(0, len(there), SECTOR))
        for read in reads:
            known = read(start, len(there)) if strange else b""
            strange = [at for at in strange if there[at : at + SECTOR] != known[at : at + SECTOR]]
        if strange:
            return start + strange[0]
    return None


def _zeroes(offset: int, length: int) -> bytes:
    return bytes(length)
