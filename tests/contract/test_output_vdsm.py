"""-o vdsm against the suite. What the suite looks at is the folder of the first disk's image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from fixtures import export_domain
from tests.contract.output_suite import GUEST, OutputSuite
from tests.contract.test_output_rhv import contents, image_content
from v2v import options, registry
from v2v.errors import TargetError
from v2v.options import SEPARATOR
from v2v.output import Output
from v2v.types import TargetDisk

IMAGES = ("aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002")
VOLUMES = ("bbbbbbbb-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002")
VM = "cccccccc-0000-4000-8000-000000000001"
UUIDS = {
    "-oo vdsm-image-uuid": SEPARATOR.join(IMAGES),
    "-oo vdsm-vol-uuid": SEPARATOR.join(VOLUMES),
    "-oo vdsm-vm-uuid": VM,
}


def make(root: Path, **more: str) -> Output:
    words = {"-os": str(root), **UUIDS, "-oo vdsm-ovf-output": str(root.parent / "ovf"), **more}
    cls = registry.find_output("vdsm")
    return cls(options.parse(cls.Options, words, module="-o vdsm"))


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    """As VDSM prepares it."""
    root = export_domain.build(tmp_path / "pool", uuid=export_domain.DATA, kind="Data")
    for image in IMAGES:
        (root / "images" / image).mkdir()
    (root.parent / "ovf").mkdir()
    return root


class TestVdsm(OutputSuite):
    words: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def folder(self, domain: Path) -> Path:
        return domain / "images" / IMAGES[0]

    def make(self, folder: Path) -> Output:
        root = folder if folder.name == export_domain.DATA else folder.parent.parent
        return make(root, **self.words)

    def content(self, disk: TargetDisk) -> bytes:
        return image_content(disk)

    def test_names_are_those_that_were_given(self, output, source, domain, run) -> None:
        ref = self.migrated(output, source, run)
        assert [Path(disk.location).relative_to(domain / "images") for disk in ref.disks] == [
            Path(image, volume) for image, volume in zip(IMAGES, VOLUMES, strict=True)
        ]
        assert ref.metadata == str(domain.parent / "ovf" / f"{VM}.ovf")
        assert Path(ref.metadata).is_file()

    def test_discard_leaves_nothing_of_any_kind(self, output, source, domain, run) -> None:
        before = contents(domain.parent)
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        output.discard((), run)
        assert contents(domain.parent) == before


class TestVdsmQcow2(TestVdsm):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2"}

    compat = "0.10"

    def test_compat_is_that_of_the_images(self, output, source, run) -> None:
        ref = self.migrated(output, source, run)
        for disk in ref.disks:
            argv = ["qemu-img", "info", "-f", "qcow2", disk.location]
            text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            assert f"compat: {self.compat}\n" in text


class TestVdsmNewQcow2(TestVdsmQcow2):
    words: ClassVar[dict[str, str]] = {
        "-of": "qcow2",
        "-oa": "preallocated",
        "-oo vdsm-compat": "1.1",
    }
    compat = "1.1"


class TestVolumesThatAreThere(TestVdsm):
    """VDSM makes the volumes first: --force replaces them, at the end."""

    words: ClassVar[dict[str, str]] = {"--force": ""}

    def old(self, domain: Path) -> list[Path]:
        finals = [
            domain / "images" / image / volume
            for image, volume in zip(IMAGES, VOLUMES, strict=True)
        ]
        files = [*finals, *(path.with_name(f"{path.name}.meta") for path in finals)]
        for path in files:
            path.write_text("old")
        return files

    def test_they_are_replaced_at_the_end(self, output, source, images, domain, run) -> None:
        files = self.old(domain)
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        assert {path.read_text() for path in files} == {"old"}
        ref = output.finalize(source, GUEST, disks, run)
        assert [self.content(disk) for disk in ref.disks] == images
        assert files[-1].read_text().endswith("EOF\n")

    def test_not_without_force(self, source, domain, run) -> None:
        self.old(domain)
        with pytest.raises(TargetError) as error:
            make(domain).check_source(source, run)
        assert error.value.id == "target-exists"

    def test_a_volume_that_is_a_device_is_left_alone(self, output, source, domain, run) -> None:
        (domain / "images" / IMAGES[0] / VOLUMES[0]).symlink_to(os.devnull)
        with pytest.raises(TargetError) as error:
            output.check_source(source, run)
        assert error.value.id == "target-not-a-file"
