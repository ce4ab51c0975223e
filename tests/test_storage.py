"""Mapping storage: a disk's own number goes before where the source has it."""

from __future__ import annotations

import pytest

from v2v.job import StorageMap
from v2v.source_facts import disk_text
from v2v.storage import target_disks, unused_maps
from v2v.types import DiskFormat, Source, SourceDisk


def disk(storage: str | None) -> SourceDisk:
    return SourceDisk("/x", DiskFormat.VMDK, storage=storage)


SOURCE = Source("web", "vmx", (disk("fast"), disk("slow"), disk(None), disk("2")))
FAST, SLOW = StorageMap("fast", "pool-a"), StorageMap("slow", "pool-b")
SECOND, THIRD = StorageMap("2", "pool-c"), StorageMap("3", "pool-d")


@pytest.mark.parametrize(
    ("maps", "targets"),
    [
        ([], [None, None, None, None]),
        ([FAST], ["pool-a", None, None, None]),
        ([FAST, SLOW], ["pool-a", "pool-b", None, None]),
        ([SLOW, THIRD], [None, "pool-b", "pool-d", None]),
        ([SLOW, SECOND], [None, "pool-c", None, "pool-c"]),  # a number, and a storage called so
        ([SECOND, SLOW], [None, "pool-c", None, "pool-c"]),
        ([StorageMap("Fast", "pool-a")], [None, None, None, None]),
    ],
)
def test_where_each_disk_goes(maps: list[StorageMap], targets: list[str | None]) -> None:
    assert [one.target_storage for one in target_disks(SOURCE, maps)] == targets


@pytest.mark.parametrize("name", ["Fast", "0", "5", "None", ""])
def test_maps_that_do_nothing_are_known(name: str) -> None:
    useless = StorageMap(name, "pool")
    assert unused_maps(SOURCE, [FAST, useless, THIRD]) == [useless]


def test_the_source_s_text_tells_of_it() -> None:
    (first, *_) = target_disks(SOURCE, [FAST])
    assert disk_text(first) == "/x (vmdk, storage fast, goes to pool-a)"
