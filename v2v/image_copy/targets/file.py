"""A file as a target: raw, or qcow2 through qemu-nbd, under a working name until it is complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from v2v import disk_files, disk_sinks, process, qemu_img
from v2v.copy.sinks import Sink
from v2v.disk_sinks import CLUSTER
from v2v.errors import TargetError, UsageError
from v2v.image_copy.targets._base import Shape, Target
from v2v.journal import sync_folder
from v2v.run import Run
from v2v.targets import Opened
from v2v.texts import size_text
from v2v.types import DiskFormat, Source

RENAME = "choose another name"
INODES = "final-files"  # journal: the inode that belongs under the final name


class FileTarget(Target):
    marked = False  # the working file can be removed again

    def __init__(self, final: Path, shape: Shape, job_id: str) -> None:
        super().__init__(str(final), shape)
        self.final = final
        self.working = disk_files.working_path(final, job_id)
        self._sparse = shape.sparse

    def check(self, source: Source, *, force: bool, run: Run) -> None:
        self._check_shape()
        if self.final.is_dir():
            raise TargetError(
                f"{self.final} is a folder",
                id="target-not-a-file",
                hint=f"name the file: {self.final / Path(source.name).name}.img for example",
            )
        self._check_folder()
        self._check_name()
        disk_files.check_not_source(self.final, source, rename=RENAME)
        inodes = run.journal.get(INODES, dict[str, int]) if INODES in run.journal else {}
        if not disk_files.is_inode(self.final, inodes.get(str(self.final))):
            disk_files.check_free(self.final, force=force, rename=RENAME)

    @contextmanager
    def open(self, disk: Opened, run: Run) -> Iterator[Sink]:
        self._check_space(disk)
        if not disk.resumed:
            self._make(disk.size)
        elif self.shape.format is DiskFormat.QCOW2:
            self._repair()
        with self._sink(disk, run) as sink:
            yield sink

    def _sink(self, disk: Opened, run: Run) -> AbstractContextManager[Sink]:
        blank = not disk.resumed
        if self.shape.format is DiskFormat.RAW:
            drop_cache = disk_sinks.drops_cache(disk.options.page_cache, disk.used)
            return disk_sinks.raw_sink(
                self.working, disk.size, blank=blank, sparse=self._sparse, drop_cache=drop_cache
            )
        return disk_sinks.qcow2_sink(
            self.working,
            run,
            name="target",
            blank=blank,
            sparse=self._sparse,
            compressed=self.shape.compressed,
            stall=disk.options.stall_timeout,
        )

    def finish(self, run: Run, size: int, *, force: bool) -> None:
        if INODES not in run.journal:
            if self._written_size(size) != size:
                qemu_img.shrink(self.working, DiskFormat.QCOW2, size)
            inode = disk_files.sync_file(self.working)
            run.journal.put(INODES, {str(self.final): inode})
        inodes = run.journal.get(INODES, dict[str, int])
        try:
            disk_files.publish([(self.working, self.final)], inodes, force=force, rename=RENAME)
        except OSError as exc:
            raise TargetError(
                f"cannot complete {self.final}: {exc.strerror}",
                id="target-write",
                hint="repair that, then go on with --resume",
            ) from exc

    def discard(self) -> None:
        self.working.unlink(missing_ok=True)

    def is_there(self, size: int) -> bool:
        """The working file, and not cut short."""
        raw = self.shape.format is DiskFormat.RAW
        return self.working.is_file() and (not raw or self.working.stat().st_size == size)

    def _check_shape(self) -> None:
        compressed = self.shape.compressed
        if compressed and self.shape.format is DiskFormat.RAW:
            raise UsageError(
                "--compressed: the raw format has no compression",
                id="option-conflict",
                hint="add -of qcow2",
            )
        if compressed and not self._sparse:
            raise UsageError(
                "--compressed and -oa preallocated exclude each other",
                id="option-conflict",
                hint="leave out one of them",
            )

    def _check_folder(self) -> None:
        folder = self.final.parent
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "no such folder"
            raise TargetError(
                f"{folder}: {what}",
                id="target-folder",
                hint="choose another place" if folder.exists() else f"mkdir -p {folder}",
            )
        try:
            tempfile.TemporaryFile(dir=folder).close()  # the only test that root can trust
        except OSError as exc:
            raise TargetError(
                f"{folder}: cannot write there: {exc.strerror}",
                id="target-unwritable",
                hint="choose another place",
            ) from exc

    def _check_name(self) -> None:
        try:
            self.working.is_file()
        except OSError as exc:
            raise TargetError(
                f"{self.final}: {exc.strerror}",
                id="target-create",
                hint="choose a shorter name: while it is written it is "
                f"{len(self.working.name) - len(self.final.name)} bytes longer",
            ) from exc

    def _check_space(self, disk: Opened) -> None:
        needed = disk.used if self._sparse else disk.size
        free = shutil.disk_usage(self.final.parent).free
        if self.working.exists():
            free += self.working.stat().st_blocks * 512
        if needed > free and not self.shape.compressed:
            raise TargetError(
                f"{self.final.parent}: the disk needs {size_text(needed)}, "
                f"{size_text(free)} are free",
                id="target-space",
                hint="make room, or choose another place"
                + ("" if self._sparse else ", or give -oa sparse"),
            )

    def _make(self, size: int) -> None:
        """Create the working file anew, blank."""
        self.discard()
        if self.shape.format is DiskFormat.RAW:
            try:
                disk_files.create_blank(self.working, size, preallocated=not self._sparse)
            except BaseException:
                self.discard()
                raise
        else:
            options = None if self._sparse else {"preallocation": "falloc"}
            qemu_img.create(
                self.working, DiskFormat.QCOW2, self._written_size(size), options=options
            )
            self.working.chmod(disk_files.MODE)
        sync_folder(self.working.parent)

    def _repair(self) -> None:
        """Give back clusters that a killed server had taken and not yet used."""
        argv = ["qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", str(self.working)]
        process.run_tool(argv, check=False)

    def _written_size(self, size: int) -> int:
        """The size while it is written: compressed, QEMU takes whole clusters only."""
        return -(-size // CLUSTER) * CLUSTER if self.shape.compressed else size
