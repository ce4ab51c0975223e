"""Every output against the suite; outputs that fill a folder against more of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.output_suite import GUEST, SIZES, OutputSuite
from v2v import options, registry
from v2v.errors import TargetError
from v2v.output import Output
from v2v.types import DiskFormat, Source, TargetDisk


def make(mode: str, words: dict[str, str]) -> Output:
    cls = registry.find_output(mode)
    return cls(options.parse(cls.Options, words, module=f"-o {mode}"))


class TestNull(OutputSuite):
    keeps = False

    def make(self, folder: Path) -> Output:
        return make("null", {})


class Crash(BaseException):
    """The machine stops here."""


class FolderSuite(OutputSuite):
    mode: ClassVar[str] = "local"
    last: ClassVar[str] = "Guest 1_2.xml"
    words: ClassVar[dict[str, str]] = {}

    def make(self, folder: Path, **more: str) -> Output:
        return make(self.mode, {"-os": str(folder), **self.words, **more})

    def forced(self, folder: Path) -> Output:
        return self.make(folder, **{"--force": ""})

    def content(self, disk: TargetDisk) -> bytes:
        path = Path(disk.location)
        if disk.format is DiskFormat.QCOW2:  # it has neither errors nor leaks
            subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)
        raw = path.with_name(path.name + ".raw")
        argv = [
            "qemu-img",
            "convert",
            "-f",
            disk.format,
            "-O",
            "raw",
            f"file:{path}",
            f"file:{raw}",
        ]
        subprocess.run(argv, check=True)
        try:
            return raw.read_bytes()
        finally:
            raw.unlink()

    def names(self) -> list[str]:
        return ["Guest 1_2-sda", "Guest 1_2-sdb", self.last]

    def test_files_have_the_guests_name(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        assert sorted(path.name for path in folder.iterdir()) == sorted(self.names())
        assert ref.metadata == str(folder / self.last)
        assert [disk.location for disk in ref.disks] == [
            str(folder / name) for name in self.names()[:-1]
        ]


class NamesSuite(FolderSuite):
    """What does not depend on the format of the disks."""

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_a_taken_name_is_refused(self, output, source, folder, run, which: int) -> None:
        taken = folder / self.names()[which]
        taken.write_text("mine")
        with pytest.raises(TargetError, match="exists already") as error:
            output.check_source(source, run)
        assert error.value.id == "target-exists"
        assert "--force" in (error.value.hint or "")
        assert taken.read_text() == "mine"

    def test_a_name_taken_meanwhile_is_not_overwritten(self, output, source, folder, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        (folder / self.last).write_text("mine")
        with pytest.raises(TargetError, match="exists already"):
            output.finalize(source, GUEST, disks, run)
        assert (folder / self.last).read_text() == "mine"
        assert not (folder / self.names()[0]).exists()
        (folder / self.last).unlink()
        output.finalize(source, GUEST, disks, run)
        assert sorted(path.name for path in folder.iterdir()) == sorted(self.names())

    def test_force_replaces_at_the_end(self, source, images, folder, run, output) -> None:
        output = self.forced(folder)
        for name in self.names():
            (folder / name).write_text("old")
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        assert {(folder / name).read_text() for name in self.names()} == {"old"}
        ref = output.finalize(source, GUEST, disks, run)
        assert [self.content(disk) for disk in ref.disks] == images
        assert sorted(path.name for path in folder.iterdir()) == sorted(self.names())

    @pytest.mark.parametrize("force", [True, False])
    @pytest.mark.parametrize("kind", ["dangling link", "link to a device", "folder", "fifo"])
    def test_what_is_no_regular_file_is_left_alone(
        self, source: Source, folder, run, kind: str, force: bool
    ) -> None:
        name = folder / self.names()[0]
        if kind == "dangling link":
            name.symlink_to(folder / "nothing")
        elif kind == "link to a device":
            name.symlink_to("/dev/null")
        elif kind == "folder":
            name.mkdir()
        else:
            os.mkfifo(name)
        output = self.forced(folder) if force else self.make(folder)
        with pytest.raises(TargetError) as error:
            output.check_source(source, run)
        assert error.value.id == ("target-not-a-file" if force else "target-exists")
        assert os.path.lexists(name)
        assert not (folder / "nothing").exists()

    @pytest.mark.parametrize("linked", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("rename", [1, 2, 3])
    def test_finalize_continues_after_a_crash(
        self, output, source, images, folder, run, monkeypatch, rename: int, linked: bool
    ) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        count, link = 0, os.link

        def crash(*args, **kwargs) -> None:
            nonlocal count
            count += 1
            if count == rename:
                if linked:
                    link(*args, **kwargs)
                raise Crash
            link(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", crash)
            with pytest.raises(Crash):
                output.finalize(source, GUEST, disks, run)
        again = self.make(folder)
        again.check_source(source, run)
        ref = again.finalize(source, GUEST, disks, run)
        assert sorted(path.name for path in folder.iterdir()) == sorted(self.names())
        assert [self.content(disk) for disk in ref.disks] == images

    def test_a_filesystem_without_hard_links_will_do(
        self, output, source, folder, run, monkeypatch
    ) -> None:
        def refuse(*args, **kwargs) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        self.migrated(output, source, run)
        assert sorted(path.name for path in folder.iterdir()) == sorted(self.names())

    def test_a_lost_working_file_is_told(self, output, source, folder, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        Path(disks[1].working).unlink()
        with pytest.raises(TargetError) as error, output.connect(disks, run):
            pass
        assert error.value.id == "target-lost"

    def test_a_strangers_file_is_not_taken_for_the_jobs(self, output, source, folder, run) -> None:
        """A crash in finalize, then somebody removes the part and uses the name."""
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        (folder / self.last).mkdir()
        with pytest.raises(TargetError):
            output.finalize(source, GUEST, disks, run)
        (folder / self.last).rmdir()
        Path(disks[0].working).rename(folder / "elsewhere")
        Path(disks[0].location).write_text("mine")
        with pytest.raises(TargetError):
            output.finalize(source, GUEST, disks, run)
        assert Path(disks[0].location).read_text() == "mine"

    def test_discard_finds_disks_that_were_not_journaled(self, output, source, folder, run) -> None:
        output.create_disks(source, SIZES, run)
        output.discard((), run)
        assert list(folder.iterdir()) == []


class TestLocalRaw(NamesSuite):
    def test_holes_stay_holes(self, output, source, folder, run) -> None:
        self.migrated(output, source, run)
        stat = (folder / "Guest 1_2-sda").stat()
        assert stat.st_size == SIZES[0]
        assert stat.st_blocks * 512 < SIZES[0]


class TestLocalQcow2(FolderSuite):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2"}


class TestLocalCompressed(FolderSuite):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2", "-oo compressed": ""}

    def test_the_data_is_compressed(self, output, source, tmp_path, folder, run) -> None:
        path = tmp_path / "source-0"
        path.write_bytes(b"compressible " * (SIZES[0] // 13 + 1))
        os.truncate(path, SIZES[0])
        self.migrated(output, source, run)
        assert (folder / "Guest 1_2-sda").stat().st_size < SIZES[0] // 4


class Preallocated(FolderSuite):
    def test_the_space_is_taken(self, output, source, folder, run) -> None:
        self.migrated(output, source, run)
        assert (folder / "Guest 1_2-sda").stat().st_blocks * 512 >= SIZES[0]


class TestLocalRawPreallocated(Preallocated):
    words: ClassVar[dict[str, str]] = {"-oa": "preallocated"}


class TestLocalQcow2Preallocated(Preallocated):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2", "-oa": "preallocated"}


class TestQemu(NamesSuite):
    mode = "qemu"
    last = "Guest 1_2.sh"

    def test_the_script_can_be_run(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        assert os.access(ref.metadata or "", os.X_OK)
        assert ref.start_hint == f"'{folder}/Guest 1_2.sh'"


def test_every_output_runs_the_suite() -> None:
    """local, qemu and null are above, the others in files named after them."""
    files = Path(__file__).parent.glob("test_output_*.py")
    others = {path.stem.removeprefix("test_output_").replace("_", "-") for path in files}
    assert set(registry.outputs()) == {"local", "qemu", "null", *others}
