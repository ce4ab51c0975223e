"""Checksums compared in the background, and the manifests that tell them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.input_suite import children
from tests.fakes.disks import disk_content
from v2v.cancel import Cancel
from v2v.errors import Cancelled, GuestError, SourceError, V2VError
from v2v.events import Event, StepStarted, Warned
from v2v.inputs._archive.manifest import read_manifest
from v2v.inputs._checksums import FileCheck, checking
from v2v.inputs._images import Access, read_file, serve_disks
from v2v.run import Run
from v2v.types import Checksum, MiB, SourceDisk

WRONG = Checksum("sha256", "0" * 64)


def checksum(data: bytes, algorithm: str = "sha256", *, enforced: bool = True) -> Checksum:
    return Checksum(algorithm, hashlib.new(algorithm, data).hexdigest(), enforced)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(disk_content())
    return path


def warned(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_a_file_that_is_as_told_passes(file: Path, run: Run, algorithm: str) -> None:
    with checking([FileCheck("file", checksum(disk_content(), algorithm), file)], run):
        pass


def test_a_part_of_a_file_is_read_alone(file: Path, run: Run) -> None:
    part = disk_content()[MiB + 3 : 3 * MiB + 10]
    with checking([FileCheck("file", checksum(part), file, MiB + 3, len(part))], run):
        pass


def test_a_difference_ends_the_block_with_name_expected_and_found(file: Path, run: Run) -> None:
    with pytest.raises(SourceError) as caught, checking([FileCheck("a.vmdk", WRONG, file)], run):
        pass
    assert caught.value.id == "ova-checksum"
    assert "a.vmdk" in caught.value.message
    assert WRONG.digest in caught.value.message
    assert checksum(disk_content()).digest in caught.value.message
    assert caught.value.hint


def test_the_error_of_the_block_is_told_rather_than_the_difference(file: Path, run: Run) -> None:
    with pytest.raises(ZeroDivisionError), checking([FileCheck("file", WRONG, file)], run):
        raise ZeroDivisionError
    assert "checksums" not in {thread.name for thread in threading.enumerate()}


def test_a_difference_is_told_as_the_cause_of_a_guest_that_makes_no_sense(
    file: Path, run: Run
) -> None:
    with pytest.raises(SourceError) as caught, checking([FileCheck("a.vmdk", WRONG, file)], run):
        for thread in threading.enumerate():  # it may have ended
            if thread.name == "checksums":
                thread.join()
        raise GuestError("no operating system is found", id="no-os")
    assert caught.value.id == "ova-checksum"
    assert isinstance(caught.value.__cause__, GuestError)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path, run: Run) -> None:
    with (
        pytest.raises(SourceError) as caught,
        checking([FileCheck("file", WRONG, tmp_path / "none")], run),
    ):
        pass
    assert caught.value.id == "source-unreadable"


def test_what_is_only_looked_at_is_not_read(file: Path, run: Run) -> None:
    run.reads_all = False
    with checking([FileCheck("file", WRONG, file)], run):
        assert "checksums" not in {thread.name for thread in threading.enumerate()}


class SlowCheck:
    """A check whose bytes come when they are let."""

    name = "slow"

    def __init__(self, checksum: Checksum, go: Callable[[Cancel], None]) -> None:
        self.checksum, self.go = checksum, go

    def chunks(self, cancel: Cancel):
        self.go(cancel)
        yield b"data"

    def differs(self, found: str) -> SourceError:
        return SourceError(found, id="ova-checksum")


def test_what_is_left_at_the_end_of_the_block_is_a_step(tmp_path: Path) -> None:
    told, go = [], threading.Event()

    def emit(event: Event) -> None:
        told.append(event)
        if isinstance(event, StepStarted):
            go.set()

    with Run.create(tmp_path, "test", emit=emit) as run:
        slow = SlowCheck(checksum(b"data"), lambda cancel: go.wait(60) and None)
        with checking([slow], run):
            assert not told
    assert [event.step for event in told if isinstance(event, StepStarted)] == ["checksums"]


def test_a_cancelled_job_does_not_wait(tmp_path: Path) -> None:
    cancel = Cancel()

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted):
            cancel.cancel()

    with Run.create(tmp_path, "test", emit=emit, cancel=cancel) as run:
        endless = SlowCheck(WRONG, lambda stop: stop.wait(60))
        with pytest.raises(Cancelled), checking([endless], run):
            pass


def test_a_difference_that_is_not_enforced_is_a_warning(
    file: Path, run: Run, events_seen: list[Event]
) -> None:
    lax = Checksum("sha256", "0" * 64, enforced=False)
    with checking([FileCheck("file", lax, file)], run):
        pass
    assert warned(events_seen) == ["checksum-differs"]


@pytest.mark.parametrize("algorithm", ["crc32", "shake_128", "../x"])
def test_an_unknown_algorithm_is_a_warning(
    file: Path, run: Run, events_seen: list[Event], algorithm: str
) -> None:
    with checking([FileCheck("file", Checksum(algorithm, "00"), file)], run):
        pass
    assert warned(events_seen) == ["checksum-unknown"]


# What the guest sees of a disk ----------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, need_tool, run: Run) -> SourceDisk:
    """A raw disk with holes."""
    need_tool("nbdkit")
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MiB)
        file.write(disk_content())
    return read_file(path, Access(), run)


CONTENT = disk_content() + bytes(10 * MiB)


def serve(disk: SourceDisk, run: Run) -> None:
    with serve_disks([disk], Access(), run):
        pass
    assert children() == set()


def with_checksum(disk: SourceDisk, one: Checksum) -> SourceDisk:
    return SourceDisk(disk.location, disk.format, disk.size, checksum=one)


def test_a_disk_is_compared_with_its_checksum_while_it_is_served(disk, run: Run) -> None:
    serve(with_checksum(disk, checksum(CONTENT)), run)


def test_a_disk_that_differs_ends_the_job(disk: SourceDisk, run: Run) -> None:
    with pytest.raises(SourceError) as caught:
        serve(with_checksum(disk, WRONG), run)
    assert caught.value.id == "source-checksum"
    assert disk.location in caught.value.message
    assert children() == set()


def test_a_disk_that_differs_may_be_a_warning(disk, run: Run, events_seen: list[Event]) -> None:
    serve(with_checksum(disk, Checksum("sha256", "0" * 64, enforced=False)), run)
    assert warned(events_seen) == ["checksum-differs"]


# Manifests ------------------------------------------------------------------------------------


def sha(algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, b"x").hexdigest()


@pytest.mark.parametrize(
    ("line", "name", "algorithm"),
    [
        (f"SHA256(a.vmdk)= {sha()}", "a.vmdk", "sha256"),
        (f"SHA1 (a.vmdk) = {sha('sha1')}", "a.vmdk", "sha1"),
        (f"sha512(a.vmdk)={sha('sha512').upper()}", "a.vmdk", "sha512"),
        (f"SHA-256(a.vmdk)= {sha()}", "a.vmdk", "sha256"),
        (f"  SHA256(./a b(1).vmdk)= {sha()}  ", "a b(1).vmdk", "sha256"),
        (f"\ufeffSHA256(ä.ovf)= {sha()}", "ä.ovf", "sha256"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\n\r\n"])
def test_lines_of_every_spelling_are_read(line: str, name: str, algorithm: str, end: str) -> None:
    found = read_manifest((line + end).encode(), "web.mf")
    assert found.files == {name: Checksum(algorithm, sha(algorithm))}


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "SHA256(a.vmdk)",
        "SHA256(a.vmdk)= xyz",
        f"SHA256(a.vmdk)= {sha()}00",
        f"SHA256(a.vmdk)= {sha('sha1')}",
        f"SHA256()= {sha()}",
        f"SHA256 a.vmdk = {sha()}",
        f"SHA256(other)= {sha()}\nSHA256(other)= {sha()[::-1]}",
    ],
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    text = f"SHA256(first)= {sha()}\n{line}\n"
    with pytest.raises(SourceError) as caught:
        read_manifest(text.encode(), "web.mf")
    assert caught.value.id == "ova-manifest-invalid"
    assert f"web.mf, line {text.count(chr(10))}:" in caught.value.message
    assert caught.value.hint


def test_the_strongest_of_several_counts() -> None:
    lines = [f"{one}(a)= {sha(one.lower())}\n" for one in ("SHA1", "SHA512", "SHA256")]
    assert read_manifest("".join(lines).encode(), "m").files == {
        "a": Checksum("sha512", sha("sha512"))
    }


def test_unknown_algorithms_are_told() -> None:
    found = read_manifest(f"WHIRL(a)= 00\nSHA256(b)= {sha()}".encode(), "m")
    assert found.unknown == ("WHIRL",)
    assert list(found.files) == ["b"]


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_manifest_or_an_error(data: bytes) -> None:
    try:
        read_manifest(data, "m")
    except V2VError as exc:
        assert exc.id == "ova-manifest-invalid"


def test_a_long_line_is_refused_at_once() -> None:
    with pytest.raises(SourceError):
        read_manifest(b"SHA256(" + b"(" * 1_000_000, "m")
