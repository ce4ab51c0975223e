"""What outputs share that put a guest's disks and its description into a local folder."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from v2v.copy.sinks import Sink
from v2v.errors import TargetError, UsageError
from v2v.hardware import Hardware, target_hardware
from v2v.journal import sync_folder
from v2v.options import option
from v2v.output import Output
from v2v.outputs import _files, _images
from v2v.outputs._images import Shape
from v2v.outputs._sinks import RAW_REQUEST
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import (
    Allocation,
    ConvertedGuest,
    DiskFormat,
    GuestRef,
    Source,
    TargetDisk,
)

INODES = "final-files"  # journal: the inode that belongs under each final name


class ImageFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    storage: Path = option("-os", "folder for the disks and the description", metavar="FOLDER")
    format: ImageFormat = option("-of", "format of the disks", default=ImageFormat.RAW)
    allocation: Allocation = option(
        "-oa", "whether free space inside the disks takes space", default=Allocation.SPARSE
    )
    compressed: bool = option("-oo compressed", "compress the disks (qcow2 only)", default=False)
    force: bool = option("--force", "replace files that have the guest's names", default=False)


class FolderOutput(Output):
    """Disks NAME-sda, NAME-sdb, ... and one file that describes the guest."""

    Options = FolderOptions
    tools = ("qemu-nbd", "qemu-img")
    request_size = RAW_REQUEST
    suffix: ClassVar[str]  # of the file that describes the guest
    file_mode: ClassVar[int] = 0o644

    options: FolderOptions

    @property
    def can_rewrite(self) -> bool:  # type: ignore[override]
        """QEMU 7.2 damages compressed clusters when some of the same run are written over."""
        return not self.options.compressed

    @property
    def _shape(self) -> Shape:
        return Shape(self.options.allocation, compressed=self.options.compressed)

    @abstractmethod
    def description(self, hardware: Hardware, disks: Sequence[TargetDisk]) -> bytes:
        """The content of the file that describes the guest; the disks have their final names."""

    @abstractmethod
    def start_hint(self, name: str, description: Path) -> str: ...

    def check_source(self, source: Source, run: Run) -> None:
        self._check_options()
        self._check_folder()
        inodes = run.journal.get(INODES, dict[str, int]) if INODES in run.journal else {}
        for final in self._finals(source):
            _files.check_not_source(final, source)
            if not _files.is_inode(final, inodes.get(str(final))):
                _files.check_free(final, force=self.options.force)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        preallocated = self.options.allocation is Allocation.PREALLOCATED
        needed = sum(sizes) if preallocated else sum(used)
        own = _files.leftovers(self.options.storage, run.job_id)
        free = shutil.disk_usage(self.options.storage).free
        free += sum(path.lstat().st_blocks * 512 for path in own)
        if needed > free:
            raise TargetError(
                f"-os {self.options.storage}: the disks need {size_text(needed)}, "
                f"{size_text(free)} are free",
                id="target-space",
                hint="make room, or choose another folder with -os"
                + (", or give -oa sparse" if preallocated else ""),
            )

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        finals = self._finals(source)[: len(sizes)]
        format = DiskFormat(self.options.format)
        disks = tuple(
            TargetDisk(str(final), str(_files.working_path(final, run.job_id)), format, size)
            for final, size in zip(finals, sizes, strict=True)
        )
        self.discard((), run)  # the VM may have had other disks, or another name
        try:
            for disk in disks:
                _images.make(disk, self._shape)
        except BaseException:
            self.discard(disks, run)
            raise
        sync_folder(self.options.storage)
        return disks

    def connect(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> AbstractContextManager[Sequence[Sink]]:
        return _images.open_sinks(disks, self._shape, run)

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        name = _files.safe_name(source.name)
        description = self._finals(source)[-1]
        pairs = [(Path(disk.working), Path(disk.location)) for disk in disks]
        pairs.append((_files.working_path(description, run.job_id), description))
        final_disks = tuple(replace(disk, working=disk.location) for disk in disks)
        if INODES not in run.journal:
            hardware = replace(target_hardware(source, guest), name=name)
            content = self.description(hardware, final_disks)
            run.journal.put(INODES, self._complete(disks, pairs, content))
        inodes = run.journal.get(INODES, dict[str, int])
        _files.publish(pairs, inodes, force=self.options.force)
        return GuestRef(
            name=name,
            disks=final_disks,
            metadata=str(description),
            start_hint=self.start_hint(name, description),
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        paths = {Path(disk.working) for disk in disks}
        for path in paths.union(_files.leftovers(self.options.storage, run.job_id)):
            path.unlink(missing_ok=True)

    def _finals(self, source: Source) -> list[Path]:
        """The final names: of each disk, and last of the description."""
        stem = _files.safe_name(source.name)
        names = [f"{stem}-{_files.disk_suffix(index)}" for index in range(len(source.disks))]
        return [self.options.storage / name for name in [*names, stem + self.suffix]]

    def _complete(
        self,
        disks: Sequence[TargetDisk],
        pairs: Sequence[tuple[Path, Path]],
        content: bytes,
    ) -> dict[str, int]:
        """Write the description beside the disks and sync them all; their inodes."""
        for disk in disks:
            _images.complete(disk, self._shape)
        try:
            _files.write_file(pairs[-1][0], content, self.file_mode)
            inodes = {str(final): _files.sync_file(working) for working, final in pairs}
        except OSError as exc:
            raise TargetError(
                f"cannot complete {exc.filename or self.options.storage}: {exc.strerror}",
                id="target-write",
                hint="when that is repaired, continue with `v2v resume`",
            ) from exc
        sync_folder(self.options.storage)
        return inodes

    def _check_options(self) -> None:
        if not self.options.compressed:
            return
        if self.options.format is not ImageFormat.QCOW2:
            raise UsageError(
                f"-oo compressed: the {self.options.format} format has no compression",
                id="option-conflict",
                hint="add -of qcow2",
            )
        if self.options.allocation is Allocation.PREALLOCATED:
            raise UsageError(
                "-oo compressed and -oa preallocated exclude each other",
                id="option-conflict",
                hint="leave out one of them",
            )

    def _check_folder(self) -> None:
        folder = self.options.storage
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "no such folder"
            raise TargetError(
                f"-os {folder}: {what}",
                id="target-folder",
                hint="choose another with -os" if folder.exists() else f"mkdir -p {folder}",
            )
        if not str(folder).isprintable():
            raise UsageError(
                f"-os {str(folder)!r}: the path holds characters that no description can",
                id="target-folder-name",
                hint="choose another folder with -os",
            )
        _files.check_writable(folder, flag="-os")
