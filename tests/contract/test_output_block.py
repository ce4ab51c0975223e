"""-o block against the suite: loop devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.contract.existing_suite import ROOM, ExistingSuite
from tests.places import loop_devices
from v2v.types import TargetDisk


class TestBlock(ExistingSuite):
    mode = "block"
    knows_blank = False

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        with loop_devices(folder) as make:
            yield [(str(make(bytes(ROOM))), folder / f"loop-{number}") for number in range(2)]

    def content(self, disk: TargetDisk) -> bytes:
        return Path(disk.location).read_bytes()[: disk.size]
