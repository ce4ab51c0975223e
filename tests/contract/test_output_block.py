"""-o block against the suite: loop devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from tests.contract.existing_suite import ROOM, ExistingSuite
from tests.places import LoopDevice
from v2v.types import MiB, TargetDisk


class TestBlock(ExistingSuite):
    mode = "block"
    knows_blank = False

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        files = [folder / "loop-0", folder / "loop-1"]
        with ExitStack() as stack:
            self.devices = []
            for file in files:
                file.write_bytes(bytes(ROOM))
                self.devices.append(stack.enter_context(closing(LoopDevice(file))))
            yield [(str(device.path), device.file) for device in self.devices]

    def write(self, number: int, content: bytes) -> None:
        """What is held open has a cache, which a write to the file would not reach."""
        with self.devices[number].path.open("r+b") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def test_another_device_of_the_name_must_be_blank(self, output, source, run) -> None:
        """The job had written nothing that it could be known by."""
        disks = self.create(output, source, run)
        with output.connect(disks, run) as sinks:
            sinks[1].write(0, memoryview(bytes(MiB)))
        self.write(1, b"a stranger's")
        output.check_source(source, run)  # it is the same device still
        self.devices[1].attach_again()
        self.refused("target-not-empty", lambda: output.check_source(source, run))

    def content(self, disk: TargetDisk) -> bytes:
        return Path(disk.location).read_bytes()[: disk.size]
