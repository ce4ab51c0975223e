"""Where a guest's files are in a storage domain, while they are written and in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from v2v.disk_files import working_path


@dataclass(frozen=True, slots=True)
class Volume:
    """One disk: an image file, and its .meta file beside it."""

    image: str  # UUIDs
    volume: str
    working: Path
    final: Path
    working_meta: Path

    @property
    def final_meta(self) -> Path:
        return meta_path(self.final)


@dataclass(frozen=True, slots=True)
class Layout:
    """`moves` are what is renamed when all is complete, in that order: (working, final)."""

    storage: str  # UUID of the domain
    vm: str  # UUID
    volumes: tuple[Volume, ...]
    working_ovf: Path
    final_ovf: Path
    moves: tuple[tuple[Path, Path], ...]
    rooms: tuple[Path, ...]  # folders that must be there, and hold the working names

    @property
    def new_folders(self) -> tuple[Path, ...]:
        """Working folders, which the job makes."""
        files = [*(one.working for one in self.volumes), self.working_ovf]
        return tuple(dict.fromkeys(file.parent for file in files if file.parent not in self.rooms))


def meta_path(volume: Path) -> Path:
    return volume.with_name(f"{volume.name}.meta")


def of_folders(
    root: Path, storage: str, vm: str, disks: Sequence[tuple[str, str]], job_id: str
) -> Layout:
    """Everything in folders of the job's own, which are renamed: nobody sees a part of it.

    disks: (image, volume), UUIDs.
    """
    images, vms = root / "images", root / "master" / "vms"
    moves = [(working_path(images / image, job_id), images / image) for image, _ in disks]
    volumes = [
        Volume(image, volume, new / volume, old / volume, meta_path(new / volume))
        for (image, volume), (new, old) in zip(disks, moves, strict=True)
    ]
    new, old = working_path(vms / vm, job_id), vms / vm
    ovf = f"{vm}.ovf"
    return Layout(
        storage,
        vm,
        tuple(volumes),
        new / ovf,
        old / ovf,
        (*moves, (new, old)),
        (images, vms),
    )


def of_files(
    root: Path, storage: str, vm: str, disks: Sequence[tuple[str, str]], ovfs: Path, job_id: str
) -> Layout:
    """Files in folders that are there; the OVF goes to the folder `ovfs`."""
    volumes = [_volume(root / "images" / image / volume, job_id) for image, volume in disks]
    final_ovf = ovfs / f"{vm}.ovf"
    working_ovf = working_path(final_ovf, job_id)
    moves = [
        pair
        for one in volumes
        for pair in ((one.working, one.final), (one.working_meta, one.final_meta))
    ]
    folders = dict.fromkeys([*(one.final.parent for one in volumes), ovfs])
    return Layout(
        storage,
        vm,
        tuple(volumes),
        working_ovf,
        final_ovf,
        (*moves, (working_ovf, final_ovf)),
        tuple(folders),
    )


def _volume(final: Path, job_id: str) -> Volume:
    meta = working_path(meta_path(final), job_id)
    return Volume(final.parent.name, final.name, working_path(final, job_id), final, meta)
