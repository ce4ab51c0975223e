"""A job's image files: made blank, opened for writing, and known again when a job is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from v2v import qemu_img
from v2v.copy.sinks import Sink
from v2v.disk_files import MODE, create_blank
from v2v.errors import TargetError
from v2v.journal import sync_folder
from v2v.output import forget_progress, is_begun, is_copied
from v2v.outputs._sinks import CLUSTER, qcow2_sink, raw_sink
from v2v.run import Run
from v2v.types import Allocation, DiskFormat, TargetDisk


@dataclass(frozen=True, slots=True)
class Shape:
    """How the images use space."""

    allocation: Allocation = Allocation.SPARSE
    compressed: bool = False  # qcow2 only
    compat: str | None = None  # version of qcow2: 0.10 or 1.1; None: what qemu-img makes

    @property
    def sparse(self) -> bool:
        return self.allocation is Allocation.SPARSE


def make(disk: TargetDisk, shape: Shape) -> None:
    """Create the working file anew, blank."""
    path = Path(disk.working)
    path.unlink(missing_ok=True)
    if disk.format is DiskFormat.RAW:
        create_blank(path, disk.size, preallocated=not shape.sparse)
        return
    options = {} if shape.sparse else {"preallocation": "falloc"}
    if shape.compat:
        options["compat"] = shape.compat
    qemu_img.create(path, DiskFormat.QCOW2, _copied_size(disk, shape), options=options)
    path.chmod(MODE)


def complete(disk: TargetDisk, shape: Shape) -> None:
    """Give a disk that was copied whole its own size."""
    if _copied_size(disk, shape) != disk.size:
        qemu_img.shrink(Path(disk.working), disk.format, disk.size)


@contextmanager
def open_sinks(disks: Sequence[TargetDisk], shape: Shape, run: Run) -> Iterator[Sequence[Sink]]:
    """Images of which nothing counts as copied are made anew, blank."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(open_sink(index, disk, shape, run))
            for index, disk in enumerate(disks)
        ]


def is_kept(index: int, disk: TargetDisk, run: Run) -> bool:
    """Whether the working file holds something that counts as copied."""
    return is_held(index, disk.working, run, there=_is_there(disk))


def _is_there(disk: TargetDisk) -> bool:
    """As far as can be told without reading it: a raw file that was cut off is not."""
    path = Path(disk.working)
    if path.is_symlink() or not path.is_file():
        return False
    return disk.format is not DiskFormat.RAW or path.stat().st_size == disk.size


def is_held(index: int, name: str, run: Run, *, there: bool) -> bool:
    """Whether disk `index` holds something that counts as copied. `name`: for people."""
    if not is_copied(run, index) and not is_begun(run, index):
        return False
    if there:
        return True
    if is_copied(run, index):
        raise TargetError(
            f"{name} is gone or was replaced, though it was copied",
            id="target-lost",
            hint="start the migration again",
        )
    run.warn(
        f"{name} is gone or was replaced, which held a part of disk {index + 1}: it is copied "
        "again",
        id="target-part-lost",
    )
    return False


def open_sink(index: int, disk: TargetDisk, shape: Shape, run: Run) -> AbstractContextManager[Sink]:
    kept = is_kept(index, disk, run)
    if not kept:
        forget_progress(run, [index])
        make(disk, shape)
        sync_folder(Path(disk.working).parent)
    if disk.format is DiskFormat.RAW:
        return raw_sink(disk, index, run, blank=not kept, sparse=shape.sparse)
    return qcow2_sink(
        disk, index, run, blank=not kept, sparse=shape.sparse, compressed=shape.compressed
    )


def _copied_size(disk: TargetDisk, shape: Shape) -> int:
    """The size while it is written: compressed, QEMU takes whole clusters only."""
    return -(-disk.size // CLUSTER) * CLUSTER if shape.compressed else disk.size
