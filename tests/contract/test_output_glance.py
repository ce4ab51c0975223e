"""-o glance against the suite of all outputs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.output_suite import OutputSuite
from tests.openstack_cloud import Cloud, running
from v2v import options
from v2v.output import Output
from v2v.outputs.glance import GlanceOptions, GlanceOutput
from v2v.types import TargetDisk


class GlanceSuite(OutputSuite):
    format = "qcow2"

    @pytest.fixture(autouse=True)
    def cloud(self, tmp_path: Path) -> Iterator[Cloud]:
        with running(tmp_path / "cloud") as self.running:
            yield self.running

    def make(self, folder: Path) -> Output:
        words = {**self.running.login, "-oo staging": str(folder), "-of": self.format}
        return GlanceOutput(options.parse(GlanceOptions, words, module="-o glance"))

    def content(self, disk: TargetDisk) -> bytes:
        path = self.running.state.folder / "image"
        path.write_bytes(self.running.state.contents[disk.location.removeprefix("glance:")])
        raw = path.with_name("raw")
        argv = ["qemu-img", "convert", "-f", self.format, "-O", "raw", str(path), str(raw)]
        subprocess.run(argv, check=True)
        return raw.read_bytes()


class TestGlance(GlanceSuite):
    def test_the_images_have_the_guests_name(self, output, source, run) -> None:
        self.migrated(output, source, run)
        names = [one["name"] for one in self.running.state.images.values()]
        assert names == ["Guest 1/2", "Guest 1/2-disk2"]


class TestGlanceRaw(GlanceSuite):
    format = "raw"
