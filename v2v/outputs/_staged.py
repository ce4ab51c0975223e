"""Outputs that send whole image files: the disks are written to files of the job's own first.

What is copied there survives a failure of the target: `resume` sends it again, and nothing is read
or converted twice. The files are removed once the guest is handed over.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from v2v import events
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import Sink
from v2v.disk_files import working_path
from v2v.disk_sinks import RAW_REQUEST
from v2v.errors import TargetError
from v2v.journal import sync_folder
from v2v.options import option
from v2v.output import Output
from v2v.outputs import _images
from v2v.outputs._files import check_writable, leftovers
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import DiskFormat, Source, TargetDisk

SEND = "send"  # the phase of a disk's progress


class StagedFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedOptions:
    format: StagedFormat = option(
        "-of", "format of the images that are sent", default=StagedFormat.QCOW2
    )
    staging: Path | None = option(
        "-oo staging",
        "folder for the images until they are sent (default: the job's own)",
        default=None,
        metavar="FOLDER",
    )


class StagedOutput(Output):
    """A subclass's `finalize` sends the files that `disk.working` names, and ends with `unstage`.

    It journals each file that was sent, so that it is not sent twice.
    """

    Options: ClassVar[type] = StagedOptions
    tools = ("qemu-nbd", "qemu-img")
    bootable = False
    request_size = RAW_REQUEST  # of local files; how they are sent is the subclass's matter
    shape: ClassVar[_images.Shape] = _images.Shape()

    options: StagedOptions

    def check_staging(self, run: Run) -> None:
        """To be called by `check_source`."""
        folder = self._folder(run)
        if not folder.is_dir():
            raise TargetError(
                f"-oo staging={folder}: no such folder",
                id="target-folder",
                hint=f"mkdir -p {folder}",
            )
        check_writable(folder, flag="-oo staging")

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        folder = self._folder(run)
        own = sum(path.lstat().st_blocks * 512 for path in leftovers(folder, run.job_id))
        free = shutil.disk_usage(folder).free + own
        if sum(used) > free:
            raise TargetError(
                f"{folder}: the images need {size_text(sum(used))} until they are sent, "
                f"{size_text(free)} are free",
                id="staging-space",
                hint="make room, or choose another folder with -oo staging=FOLDER",
            )

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        folder, format = self._folder(run), DiskFormat(self.options.format)
        disks = tuple(
            TargetDisk("", str(working_path(folder / f"disk{index}", run.job_id)), format, size)
            for index, size in enumerate(sizes)
        )
        try:
            for disk in disks:
                _images.make(disk, self.shape)
        except BaseException:
            self.discard(disks, run)
            raise
        sync_folder(folder)
        return disks

    def connect(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> AbstractContextManager[Sequence[Sink]]:
        return _images.open_sinks(disks, self.shape, run)

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        self.unstage(run)

    def unstage(self, run: Run) -> None:
        """Remove the files. Safe to repeat."""
        for path in leftovers(self._folder(run), run.job_id):
            path.unlink(missing_ok=True)

    def _folder(self, run: Run) -> Path:
        return self.options.staging or run.folder


class OutgoingFile(io.FileIO):
    """A file that a client library reads to send it: it tells how far that is, as CopyProgress
    events of the phase "send", and raises Cancelled once the job is cancelled.

    `index` is the disk's. A library may go back to the beginning and send it again. TargetError
    when the file is gone.
    """

    def __init__(self, path: Path, index: int, run: Run) -> None:
        try:
            super().__init__(os.fspath(path), "rb")
        except OSError as exc:
            raise TargetError(
                f"{path} is gone, though it was copied: {exc.strerror}",
                id="target-lost",
                hint="start the migration again",
            ) from exc

        def tell(standing: Standing) -> None:
            run.emit(events.CopyProgress, **asdict(standing))

        self.size = os.fstat(self.fileno()).st_size
        self._cancel = run.cancel
        self._meter = Progress(tell).meter(index)
        self._position = -1  # where the next read is expected

    def read(self, size: int | None = -1, /) -> bytes:
        self._before()
        data = super().read(-1 if size is None else size) or b""
        self._after(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        self._before()
        count = super().readinto(buffer) or 0
        self._after(count)
        return count

    def _before(self) -> None:
        self._cancel.check()
        position = self.tell()
        if position != self._position:
            self._meter.begin(SEND, self.size, done=position)
            self._position = position

    def _after(self, count: int) -> None:
        if count:
            self._meter.add(count)
            self._position += count
            if self._position >= self.size:
                self._meter.finish()
