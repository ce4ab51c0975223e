"""-o rhv against the suite. What the suite looks at is the folder of the images."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from fixtures import export_domain
from tests.contract.output_suite import GUEST, SIZES, OutputSuite
from v2v import options, registry
from v2v.errors import TargetError
from v2v.output import Output
from v2v.types import DiskFormat, TargetDisk


class TestRhv(OutputSuite):
    words: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return export_domain.build(tmp_path / "export") / "images"

    def make(self, folder: Path | str) -> Output:
        share = str(folder).partition(f"/{export_domain.EXPORT}")[0]
        cls = registry.find_output("rhv")
        return cls(options.parse(cls.Options, {"-os": share, **self.words}, module="-o rhv"))

    def content(self, disk: TargetDisk) -> bytes:
        return image_content(disk)

    def test_finalize_can_be_repeated(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        before = contents(folder.parent)
        disks = run.journal.get("disks", tuple[TargetDisk, ...])
        assert self.make(folder).finalize(source, GUEST, disks, run) == ref
        assert contents(folder.parent) == before

    def test_discard_leaves_nothing_of_any_kind(self, output, source, folder, run) -> None:
        before = contents(folder.parent)
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        output.discard((), run)
        assert contents(folder.parent) == before

    def test_a_vm_is_seen_only_when_it_is_complete(self, output, source, folder, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        vms = folder.parent / "master" / "vms"
        assert not [path for path in (*folder.iterdir(), *vms.iterdir()) if path.name[0] != "."]
        ref = output.finalize(source, GUEST, disks, run)
        (vm,) = vms.iterdir()
        assert ref.metadata == str(vm / f"{vm.name}.ovf")
        assert len(list(folder.iterdir())) == len(SIZES)

    @pytest.mark.parametrize("rename", [1, 2, 3])
    def test_finalize_continues_after_a_crash(
        self, output, source, images, folder, run, monkeypatch, rename: int
    ) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        count, real = 0, Path.rename

        def crash(path: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == rename:
                raise Crash
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crash)
            with pytest.raises(Crash):
                output.finalize(source, GUEST, disks, run)
        again = self.make(folder)
        again.check_source(source, run)
        ref = again.finalize(source, GUEST, disks, run)
        assert [self.content(disk) for disk in ref.disks] == images

    def test_a_folder_that_is_there_is_not_replaced(self, output, source, folder, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        taken = Path(disks[1].location).parent
        taken.mkdir()
        with pytest.raises(TargetError) as error:
            output.finalize(source, GUEST, disks, run)
        assert error.value.id == "target-exists"
        assert not Path(disks[0].location).exists()
        taken.rmdir()
        output.finalize(source, GUEST, disks, run)


class TestRhvQcow2(TestRhv):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2"}


class Crash(BaseException):
    """The machine stops here."""


def image_content(disk: TargetDisk) -> bytes:
    path = Path(disk.location)
    if disk.format is DiskFormat.RAW:
        return path.read_bytes()
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)
    raw = path.with_name(path.name + ".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw], check=True)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}
