"""Where the target puts each disk: what --storage asks, by disk or by the source's storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from v2v.job import StorageMap
from v2v.types import Source, SourceDisk


def target_disks(source: Source, maps: Sequence[StorageMap]) -> tuple[SourceDisk, ...]:
    """The source's disks, each with the storage that is asked for it; None: the output's -os."""
    return tuple(
        replace(disk, target_storage=_asked(disk, number, maps))
        for number, disk in enumerate(source.disks, 1)
    )


def unused_maps(source: Source, maps: Sequence[StorageMap]) -> list[StorageMap]:
    """Maps that name a storage or a disk that the source does not have."""
    known = {disk.storage for disk in source.disks}
    known |= {str(number) for number, _ in enumerate(source.disks, 1)}
    return [one for one in maps if one.source not in known]


def _asked(disk: SourceDisk, number: int, maps: Sequence[StorageMap]) -> str | None:
    """The disk's own number goes before the name of where it is."""
    for name in (str(number), disk.storage):
        for one in maps:
            if one.source == name:
                return one.target
    return None
