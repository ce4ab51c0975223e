"""How one source disk is served, and parts of files as disks."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.input_suite import check_extents, children, read_all
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v import nbd_client
from v2v.errors import V2VError
from v2v.events import Event, Warned
from v2v.inputs._details import LENGTH, MEMBER, MODIFIED, OFFSET, PACKED, Slice
from v2v.inputs._images import Access, read_disk
from v2v.inputs._serve import serve_disk
from v2v.run import Run
from v2v.types import DiskFormat, MiB, SourceDisk

CONTENT = disk_content()
BEFORE = b"\xa5" * 1536  # what stands before the image in the archive
AFTER = b"\x5a" * 4096  # and behind it

KINDS = {
    "raw": (),
    "qcow2": ("-O", "qcow2"),
    "qcow2-compressed": ("-O", "qcow2", "-c"),
    "streamOptimized": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "vhd": ("-O", "vpc", "-o", "subformat=dynamic,force_size=on"),
    "vhd-fixed": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vdi": ("-O", "vdi"),
}
ACCESS = Access()


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def qemu_img(*argv: object) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


def image(folder: Path, kind: str) -> bytes:
    """The bytes of an image with CONTENT inside."""
    if kind == "raw":
        return CONTENT
    raw, made = folder / "raw", folder / "made"
    raw.write_bytes(CONTENT)
    qemu_img("convert", "-f", "raw", *KINDS[kind], raw, made)
    return made.read_bytes()


def archive(folder: Path, member: bytes, *, after: bytes = AFTER) -> tuple[Path, Slice]:
    """A file with the member in its middle."""
    path = folder / "vm, old.ova"
    path.write_bytes(BEFORE + member + after)
    return path, Slice(len(BEFORE), len(member), "disk1")


def served(disk: SourceDisk, run: Run) -> bytes:
    with serve_disk(disk, 0, run) as endpoint:
        assert endpoint.file is None
        content = read_all(endpoint)
        check_extents(list(nbd_client.extents(endpoint)), endpoint.size, content)
        return content


def refused(run: Run, id: str, path: Path, part: Slice, access: Access = ACCESS) -> V2VError:
    with pytest.raises(V2VError) as caught:
        read_disk(str(path), access, run, part=part)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "disk1 in" in str(caught.value)
    return caught.value


# Parts of files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_part_of_a_file(run: Run, tmp_path: Path, kind: str) -> None:
    path, part = archive(tmp_path, image(tmp_path, kind))
    disk = read_disk(str(path), ACCESS, run, part=part)
    assert (disk.location, disk.files) == (str(path), (str(path),))
    assert (disk.details[OFFSET], disk.details[LENGTH]) == ("1536", str(part.length))
    assert disk.details[MEMBER] == "disk1"
    assert disk.details[MODIFIED]
    assert disk.size == len(CONTENT)
    assert served(disk, run) == CONTENT


@pytest.mark.parametrize("kind", ["qcow2", "streamOptimized"])
@pytest.mark.parametrize("after", [AFTER, b"", b"xy"])
def test_a_part_whose_length_is_no_whole_number_of_sectors(
    run: Run, tmp_path: Path, kind: str, after: bytes
) -> None:
    path, part = archive(tmp_path, image(tmp_path, kind) + b"\1" * 100, after=after)
    disk = read_disk(str(path), ACCESS, run, part=part)
    assert served(disk, run) == CONTENT


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vhd", "vhd-fixed"])
def test_a_part_that_does_not_begin_on_a_sector(run: Run, tmp_path: Path, kind: str) -> None:
    content = image(tmp_path, kind)
    path = tmp_path / "odd"
    path.write_bytes(b"\xa5" * 77 + content)
    disk = read_disk(str(path), ACCESS, run, part=Slice(77, len(content)))
    assert served(disk, run) == CONTENT


def test_a_raw_part_of_an_odd_length_ends_with_zeroes(
    run: Run, tmp_path: Path, events_seen: list[Event]
) -> None:
    """Not with what follows it."""
    path, part = archive(tmp_path, CONTENT + b"end")
    disk = read_disk(str(path), ACCESS, run, part=part)
    assert [e.id for e in events_seen if isinstance(e, Warned)] == ["source-padded"]
    assert served(disk, run) == (CONTENT + b"end").ljust(len(CONTENT) + 512, b"\0")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_packed_part(run: Run, tmp_path: Path, kind: str, pack) -> None:
    path, part = archive(tmp_path, pack(image(tmp_path, kind)))
    disk = read_disk(str(path), ACCESS, run, part=part)
    assert disk.details[PACKED] in ("gzip", "xz")
    assert disk.format == kind
    assert served(disk, run) == CONTENT


@pytest.mark.parametrize("kind", ["raw", "qcow2", "streamOptimized"])
def test_a_part_of_a_file_on_a_web_server(run: Run, tmp_path: Path, kind: str) -> None:
    path, part = archive(tmp_path, image(tmp_path, kind))
    path.rename(tmp_path / "vm.ova")
    with serve_folder(tmp_path) as address:
        disk = read_disk(f"{address}/vm.ova", ACCESS, run, part=part)
        assert disk.location == f"{address}/vm.ova"
        assert served(disk, run) == CONTENT


@pytest.fixture
def export(tmp_path: Path) -> Iterator[tuple[str, Slice]]:
    """An NBD server of somebody else, with a disk in a part of its export."""
    path, part = archive(tmp_path, CONTENT)
    socket, pid_file = tmp_path / "s", tmp_path / "pid"
    subprocess.run(["nbdkit", "-P", pid_file, "-U", socket, "file", path], check=True)
    yield f"nbd+unix:///?socket={socket}", part
    subprocess.run(["kill", pid_file.read_text().strip()], check=True)


def test_a_part_of_an_nbd_export(run: Run, export: tuple[str, Slice]) -> None:
    disk = read_disk(export[0], ACCESS, run, part=export[1])
    assert served(disk, run) == CONTENT


def test_several_clients_read_a_part(run: Run, tmp_path: Path) -> None:
    path, part = archive(tmp_path, image(tmp_path, "qcow2"))
    with serve_disk(read_disk(str(path), ACCESS, run, part=part), 0, run) as endpoint:
        handles = [nbd_client.connect(endpoint) for _ in range(3)]
        assert [bytes(h.pread(512, MiB)) for h in handles] == [CONTENT[MiB : MiB + 512]] * 3
        for handle in handles:
            handle.shutdown()
    assert children() == set()


def test_a_part_that_goes_on_behind_the_end(run: Run, tmp_path: Path) -> None:
    """The archive was cut: told when it is read, and when it was cut after that."""
    path, part = archive(tmp_path, image(tmp_path, "qcow2"), after=b"")
    disk = read_disk(str(path), ACCESS, run, part=part)
    path.write_bytes(path.read_bytes()[:-MiB])
    refused(run, "image-truncated", path, part)
    for one in (disk, replace(disk, format=DiskFormat.RAW)):
        with pytest.raises(V2VError) as caught, serve_disk(one, 0, run):
            pass
        assert caught.value.id in ("image-truncated", "source-serve")
        assert "disk1 in" in str(caught.value)


@pytest.mark.parametrize("name", ["other", "/etc/passwd", "vm, old.ova"])
def test_an_image_in_an_archive_names_no_other_file(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "other").write_bytes(CONTENT)
    made = tmp_path / "made"
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", name, made, 6 * MiB)
    path, part = archive(tmp_path, made.read_bytes())
    refused(run, "image-names-other-file", path, part)
    refused(run, "image-names-other-file", path, part, Access(allowed=(tmp_path,)))


def test_an_archive_that_turned_hostile_after_it_was_read(run: Run, tmp_path: Path) -> None:
    path, part = archive(tmp_path, image(tmp_path, "qcow2"))
    disk = read_disk(str(path), ACCESS, run, part=part)
    made = tmp_path / "made"
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", made, 6 * MiB)
    path.write_bytes(BEFORE + made.read_bytes().ljust(part.length, b"\0") + AFTER)
    with pytest.raises(V2VError) as caught, serve_disk(disk, 0, run):
        pass
    assert caught.value.id == "image-names-other-file"


def test_no_disk_in_a_part(run: Run, tmp_path: Path) -> None:
    path, part = archive(tmp_path, b"%PDF-1.7".ljust(4096))
    refused(run, "not-a-disk-image", path, part)
    path, part = archive(tmp_path, b"")
    refused(run, "image-empty", path, part)


def test_an_archive_that_somebody_writes(run: Run, tmp_path: Path) -> None:
    path, part = archive(tmp_path, CONTENT)
    with path.open("r+b") as file, subprocess.Popen(["sleep", "60"], stdin=file) as other:
        with pytest.raises(V2VError) as caught:
            read_disk(str(path), ACCESS, run, part=part)
        assert caught.value.id == "source-in-use"
        other.kill()
