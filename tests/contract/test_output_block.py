"""-o block against the suite: loop devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.contract.existing_suite import ROOM, ExistingSuite
from tests.places import loop_devices, tool
from v2v.types import MiB, TargetDisk


class TestBlock(ExistingSuite):
    mode = "block"
    knows_blank = False

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        with loop_devices(folder) as make:
            yield [(str(make(bytes(ROOM))), folder / f"loop-{number}") for number in range(2)]

    def test_another_device_of_the_name_must_be_blank(self, output, source, run) -> None:
        """The job had written nothing that it could be known by."""
        disks = self.create(output, source, run)
        with output.connect(disks, run) as sinks:
            sinks[1].write(0, memoryview(bytes(MiB)))
        self.write(1, b"a stranger's")
        output.check_source(source, run)  # it is the same device still
        (_, (device, file)) = self.found
        tool("losetup", "-d", device)
        tool("losetup", device, file)
        self.refused("target-not-empty", lambda: output.check_source(source, run))

    def content(self, disk: TargetDisk) -> bytes:
        return Path(disk.location).read_bytes()[: disk.size]
