"""-o openstack against the suite of all outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.output_suite import SIZES, OutputSuite
from tests.openstack_cloud import Cloud, running
from v2v import options
from v2v.output import Output
from v2v.outputs.openstack import OpenStackOptions, OpenStackOutput
from v2v.types import TargetDisk


class TestOpenStack(OutputSuite):
    knows_blank = False  # not every storage behind Cinder erases what was there

    @pytest.fixture(autouse=True)
    def cloud(self, tmp_path: Path) -> Iterator[Cloud]:
        with running(tmp_path / "cloud") as self.running:
            yield self.running

    def make(self, folder: Path) -> Output:
        words = options.parse(OpenStackOptions, self.running.attaching, module="-o openstack")
        return OpenStackOutput(words)

    def content(self, disk: TargetDisk) -> bytes:
        volume = disk.location.removeprefix("cinder:")
        with (self.running.state.folder / "volumes" / volume).open("rb") as file:
            return file.read(disk.size)

    def test_creating_again_makes_no_second_set(self, output, source, run) -> None:
        """Cinder chooses the ids: what an earlier try made is replaced."""
        output.create_disks(source, SIZES, run)
        again = output.create_disks(source, SIZES, run)
        assert sorted(self.running.state.volumes) == sorted(disk.working for disk in again)

    def test_what_lies_behind_the_disk_is_erased(self, output, source, run) -> None:
        ref = self.migrated(output, source, run)
        volume = ref.disks[0].location.removeprefix("cinder:")
        with (self.running.state.folder / "volumes" / volume).open("rb") as file:
            file.seek(ref.disks[0].size)
            while chunk := file.read(16 * 1024 * 1024):
                assert not any(chunk)
