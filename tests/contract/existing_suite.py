"""The suite of outputs that write to disks which are there already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract.output_suite import GUEST, SIZES, OutputSuite
from v2v import options, registry
from v2v.errors import V2VError
from v2v.output import Output
from v2v.types import MiB, TargetDisk

ROOM = 8 * MiB


class ExistingSuite(OutputSuite):
    mode: ClassVar[str]
    words: ClassVar[dict[str, str]] = {}

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        """Two blank places of ROOM bytes, and the files that show what they hold."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def made(self, tmp_path: Path, folder: Path, need_tool) -> Iterator[None]:
        for tool in ("nbdkit", "qemu-nbd", "losetup"):
            need_tool(tool)
        self.folder = folder
        (tmp_path / "places").mkdir()
        for places in self.places(tmp_path / "places"):
            self.found = places
            yield

    def make(self, folder: Path, **more: str) -> Output:
        (first, _), (second, _) = self.found
        words = {"-os": first, "-oo disk": second}
        words["-oo description"] = str(self.folder / "guest.xml")
        cls = registry.find_output(self.mode)
        words |= self.words | more
        return cls(options.parse(cls.Options, words, module=f"-o {self.mode}"))

    def content(self, disk: TargetDisk) -> bytes:
        return dict(self.found)[disk.location].read_bytes()[: disk.size]

    # What they all do ----------------------------------------------------------------------------

    def test_the_disks_stay_where_they_are(self, output, source, run) -> None:
        ref = self.migrated(output, source, run)
        assert [disk.location for disk in ref.disks] == [word for word, _ in self.found]
        assert ref.metadata == str(self.folder / "guest.xml")
        assert "virsh define" in (ref.start_hint or "")

    def test_behind_the_disk_nothing_is_written(self, source, run) -> None:
        for _, file in self.found:
            with file.open("r+b") as stream:
                stream.seek(ROOM - 4)
                stream.write(b"mine")
        self.migrated(self.make(self.folder, **{"--force": ""}), source, run)
        assert all(file.read_bytes().endswith(b"mine") for _, file in self.found)

    def test_a_place_that_holds_something_is_refused(self, output, source, run) -> None:
        self.write(1, b"mine")
        self.refused("target-not-empty", lambda: output.check_source(source, run))
        forced = self.make(self.folder, **{"--force": ""})
        forced.check_source(source, run)
        assert self.found[1][1].read_bytes().startswith(b"mine")

    def test_a_place_that_was_used_meanwhile_is_refused(self, output, source, run) -> None:
        disks = self.create(output, source, run)
        self.write(1, b"mine")
        with pytest.raises(V2VError) as caught, output.connect(disks, run):
            pass
        assert caught.value.id == "target-not-empty"
        assert self.found[1][1].read_bytes().startswith(b"mine")

    def test_what_the_job_wrote_itself_is_not_in_its_way(self, output, source, images, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        run.journal.drop(["disks", "copied:0", "copied:1"])
        again = self.make(self.folder)
        ref = self.migrated(again, source, run)
        assert [self.content(disk) for disk in ref.disks] == images

    def test_a_disk_that_is_too_large_is_refused(self, output, source, run) -> None:
        large = replace(source.disks[1], size=ROOM + 512)
        too_much = replace(source, disks=(source.disks[0], large))
        self.refused("target-too-small", lambda: output.check_source(too_much, run))
        self.refused(
            "target-too-small", lambda: output.check_sizes([SIZES[0], ROOM + 512], [0, 0], run)
        )

    def test_what_is_left_is_told(self, output, source, run, events_seen) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        output.discard(disks, run)
        assert [event.id for event in events_seen if getattr(event, "id", "") == "target-left"]

    def test_a_description_that_exists_is_kept(self, output, source, run) -> None:
        (self.folder / "guest.xml").write_text("mine")
        self.refused("target-exists", lambda: output.check_source(source, run))

    def test_a_description_that_came_meanwhile_is_kept(self, output, source, images, run) -> None:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        (self.folder / "guest.xml").write_text("mine")
        self.refused("target-exists", lambda: output.finalize(source, GUEST, disks, run))
        assert (self.folder / "guest.xml").read_text() == "mine"
        (self.folder / "guest.xml").unlink()
        ref = output.finalize(source, GUEST, disks, run)
        assert [self.content(disk) for disk in ref.disks] == images

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            ({"-os": "A"}, "disk 2 of 2 has no place"),
            ({"-oo disk": "2:A"}, "disk 1 of 2 has no place"),
            ({"-os": "A", "-oo disk": "B\0C"}, "disk 3"),
            ({"-os": "A", "-oo disk": "1:B"}, "disk 1 has two places"),
            ({"-oo disk": "2:A\0" + "2:B"}, "disk 2 has two places"),
            ({"-oo disk": "0:A\0B\0C"}, "disk 0"),
            ({"-os": "A", "-oo disk": "9:B"}, "disk 9"),
            ({}, "disk 1 of 2"),
        ],
    )
    def test_each_disk_has_one_place(self, source, run, words: dict[str, str], what: str) -> None:
        places = dict(zip("ABC", [word for word, _ in self.found] * 2, strict=False))
        for letter, place in places.items():
            words = {flag: word.replace(letter, place) for flag, word in words.items()}
        cls = registry.find_output(self.mode)
        output = cls(options.parse(cls.Options, words, module=f"-o {self.mode}"))
        error = self.refused("disk-places", lambda: output.check_source(source, run))
        assert what in error.message

    def test_disks_may_be_numbered(self, source, images, run) -> None:
        (first, _), (second, _) = self.found
        output = self.make(self.folder)
        cls = registry.find_output(self.mode)
        words = {"-oo disk": f"2:{first}\0{second}"}
        output = cls(options.parse(cls.Options, words, module=f"-o {self.mode}"))
        ref = self.migrated(output, source, run)
        assert [disk.location for disk in ref.disks] == [second, first]
        assert [self.content(disk) for disk in ref.disks] == images
        assert ref.metadata == str(run.folder / "Guest 1_2.xml")

    def test_a_place_is_for_one_disk(self, source, run) -> None:
        (first, _), _ = self.found
        output = self.make(self.folder, **{"-oo disk": first})
        self.refused("option-conflict", lambda: output.check_source(source, run))

    def write(self, number: int, content: bytes) -> None:
        with self.found[number][1].open("r+b") as stream:
            stream.write(content)

    def refused(self, id: str, action: Any) -> V2VError:
        with pytest.raises(V2VError) as caught:
            action()
        assert caught.value.id == id, caught.value
        assert caught.value.hint
        return caught.value
