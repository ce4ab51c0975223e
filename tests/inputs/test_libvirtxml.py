"""-i libvirtxml: golden domains, its options, and one clear error for each kind of bad file."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.domain_xml import FileDisk, VolumeDisk, WebDisk, write_domain
from tests.contract.input_suite import read_all
from tests.contract.test_inputs import detached_nbdkit
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from tests.inputs.domains import warnings
from tests.inputs.golden import FOLDER, check_golden
from v2v import options, registry
from v2v.errors import V2VError
from v2v.events import Event
from v2v.inputs._xml import MAX_BYTES
from v2v.inputs.libvirtxml import LibvirtXmlInput, LibvirtXmlOptions
from v2v.run import Run
from v2v.types import DiskFormat, MiB, Source

Make = Callable[[Path, str], Path]


@pytest.fixture
def make(need_tool) -> Make:
    """Make an image of 6 MiB at a path, of a format of qemu-img's."""
    need_tool("qemu-img")

    def image(path: Path, format: str = "raw") -> Path:
        path.parent.mkdir(exist_ok=True)
        raw = path.with_name("raw.tmp")
        raw.write_bytes(disk_content())
        argv = ["qemu-img", "convert", "-f", "raw", "-O", format, str(raw), str(path)]
        subprocess.run(argv, check=True)
        raw.unlink()
        return path

    return image


def read(run: Run, *words: object, **given: object) -> Source:
    given_options = LibvirtXmlOptions(**given)  # type: ignore[arg-type]
    return LibvirtXmlInput(given_options, [str(word) for word in words]).read_source(run)


def refused(run: Run, id: str, *words: object, **given: object) -> V2VError:
    with pytest.raises(V2VError) as caught:
        read(run, *words, **given)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


def golden(name: str, folder: Path, **words: str) -> Path:
    """The golden domain as a file in `folder`, whose disks are there too."""
    text = (FOLDER / f"{name}.xml").read_text()
    for word, value in {"DIR": str(folder), **words}.items():
        text = text.replace(f"${word}", value)
    (folder / f"{name}.xml").write_text(text)
    return folder / f"{name}.xml"


# Golden domains -----------------------------------------------------------------------------------


def test_a_q35_guest_with_everything(
    run: Run, events_seen: list[Event], tmp_path: Path, make: Make
) -> None:
    make(tmp_path / "system.qcow2", "qcow2")
    make(tmp_path / "data.raw", "raw")
    make(tmp_path / "lun.img", "raw")
    source = read(run, golden("q35-everything", tmp_path))
    check_golden(source, FOLDER / "q35-everything.txt", tmp_path)
    assert sorted(warnings(events_seen)) == [
        *["device-dropped"] * 3,  # hostdev, filesystem, the second display
        "disk-shared",
        *["nic-connection"] * 2,  # direct, hostdev
    ]


def test_an_old_pc_guest_whose_disk_is_beside_the_xml(run: Run, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "disks" / "c.img", "raw")
    check_golden(read(run, golden("pc-ide", tmp_path)), FOLDER / "pc-ide.txt", tmp_path)


def test_a_xen_guest(run: Run, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "xvda.img", "raw")
    make(tmp_path / "hdb.qcow2", "qcow2")
    check_golden(read(run, golden("xen-hvm", tmp_path)), FOLDER / "xen-hvm.txt", tmp_path)


def test_what_libvirt_says_of_a_guest_of_esx(run: Run, tmp_path: Path, make: Make) -> None:
    path = golden("esx", tmp_path)
    caught = refused(run, "domain-disk-source", path)
    assert "datastore" in caught.message
    make(tmp_path / "[datastore1] fedora" / "fedora.vmdk", "vmdk")
    check_golden(read(run, path), FOLDER / "esx.txt", tmp_path)


def test_a_guest_with_network_disks(
    run: Run, events_seen: list[Event], tmp_path: Path, make: Make, need_tool
) -> None:
    need_tool("nbdkit")
    disk = make(tmp_path / "system.raw", "raw")
    make(tmp_path / "disks" / "data.qcow2", "qcow2")
    with serve_folder(tmp_path) as address, detached_nbdkit(disk, tmp_path / "s"):
        port = address.rpartition(":")[2]
        source = read(run, golden("network", tmp_path, PORT=port))
    shown = [replace(d, location=d.location.replace(port, "$PORT")) for d in source.disks]
    source = replace(source, disks=tuple(shown))
    check_golden(source, FOLDER / "network.txt", tmp_path)
    assert warnings(events_seen) == ["nic-connection", "nic-mac-invalid"]


# The file -----------------------------------------------------------------------------------------


def test_missing_file(run: Run, tmp_path: Path) -> None:
    assert "gone.xml" in refused(run, "source-missing", tmp_path / "gone.xml").message


def test_folder(run: Run, tmp_path: Path) -> None:
    refused(run, "source-not-a-file", tmp_path)


def test_fifo_does_not_hang(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused(run, "source-not-a-file", tmp_path / "fifo")


def test_device(run: Run) -> None:
    refused(run, "source-not-a-file", "/dev/zero")


def test_empty_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.xml").touch()
    refused(run, "xml-invalid", tmp_path / "a.xml")


def test_a_file_too_large_is_not_read_to_its_end(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(MAX_BYTES * 1000)
    refused(run, "xml-too-large", tmp_path / "a.xml")


def test_a_disk_given_instead_of_the_xml(run: Run, tmp_path: Path, make: Make) -> None:
    refused(run, "xml-invalid", make(tmp_path / "a.qcow2", "qcow2"))


def test_no_text(run: Run, tmp_path: Path) -> None:
    with pytest.raises(V2VError) as caught:
        read(run, os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert caught.value.id in ("source-name", "source-missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_unreadable_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<domain/>")
    (tmp_path / "a.xml").chmod(0o600)
    for folder in (tmp_path / "a.xml").parents[:-2]:
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        refused(run, "source-unreadable", tmp_path / "a.xml")
    finally:
        os.seteuid(0)


def test_several_files(run: Run, tmp_path: Path) -> None:
    refused(run, "guests-too-many", tmp_path / "a", tmp_path / "b")


def test_an_address(run: Run) -> None:
    refused(run, "uri-scheme", "http://127.0.0.1/a.xml")


# Its disks ----------------------------------------------------------------------------------------


def test_relative_disks_are_found_from_the_folder_of_the_xml(
    run: Run, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make(tmp_path / "vm" / "disk.img", "raw")
    path = write_domain(tmp_path / "vm" / "a.xml", [FileDisk("disk.img")])
    monkeypatch.chdir(tmp_path)
    assert read(run, "vm/a.xml").disks[0].location == str(disk)
    assert read(run, path).disks[0].files == (str(disk),)


def test_a_format_that_is_not_told_is_found(run: Run, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a", "vdi")
    path = write_domain(tmp_path / "a.xml", [FileDisk("a", None)])
    assert read(run, path).disks[0].format == DiskFormat.VDI


def test_a_format_that_the_content_contradicts(run: Run, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a", "vdi")
    path = write_domain(tmp_path / "a.xml", [FileDisk("a", "qcow2")])
    refused(run, "image-format-wrong", path)


def test_a_raw_disk_stays_raw_whatever_the_guest_wrote_to_it(
    run: Run, tmp_path: Path, make: Make
) -> None:
    make(tmp_path / "system", "raw")
    (tmp_path / "packed").write_bytes(gzip.compress(disk_content()).ljust(MiB, b"\0"))
    make(tmp_path / "image", "qcow2")
    names = ("system", "packed", "image")
    path = write_domain(tmp_path / "a.xml", [FileDisk(name, "raw") for name in names])
    input = LibvirtXmlInput(LibvirtXmlOptions(), [str(path)])
    with input.serve(input.read_source(run), run) as endpoints:
        for name, endpoint in zip(names, endpoints, strict=True):
            content = (tmp_path / name).read_bytes()
            assert read_all(endpoint) == content.ljust(endpoint.size, b"\0")


def test_a_packed_disk_of_another_format_is_refused(run: Run, tmp_path: Path, make: Make) -> None:
    image = make(tmp_path / "a", "qcow2")
    image.write_bytes(gzip.compress(image.read_bytes(), 1))
    refused(run, "image-format-wrong", write_domain(tmp_path / "a.xml", [FileDisk("a", "qcow2")]))
    read(run, write_domain(tmp_path / "b.xml", [FileDisk("a", None)]))


@pytest.mark.parametrize("slice", [None, (0, 512)])
def test_any_file_of_the_host_is_not_taken_for_a_disk(
    run: Run, tmp_path: Path, slice: tuple[int, int] | None
) -> None:
    path = write_domain(tmp_path / "a.xml", [FileDisk("/etc/passwd", slice=slice)])
    refused(run, "not-a-disk-image", path)


def test_no_later_disk_is_any_file_of_the_host_either(run: Run, tmp_path: Path, make: Make) -> None:
    disk = make(tmp_path / "a")
    path = write_domain(tmp_path / "a.xml", [FileDisk(disk), FileDisk("/etc/passwd")])
    assert "/etc/passwd" in refused(run, "not-a-disk-image", path).message


def test_the_same_file_as_two_disks_is_told_once(
    run: Run, events_seen: list[Event], tmp_path: Path, make: Make
) -> None:
    disk = make(tmp_path / "a")
    (tmp_path / "link").symlink_to(disk)
    half = 3 * MiB
    halves = [FileDisk(disk, slice=(at, half)) for at in (0, half)]
    write_domain(tmp_path / "a.xml", [FileDisk(disk), *halves])
    read(run, tmp_path / "a.xml")
    assert warnings(events_seen) == []
    write_domain(tmp_path / "a.xml", [FileDisk(disk), FileDisk("link"), FileDisk(disk)])
    assert len(read(run, tmp_path / "a.xml").disks) == 3
    assert warnings(events_seen) == ["disk-repeated"]


def test_backing_files_elsewhere_need_the_option(run: Run, tmp_path: Path, make: Make) -> None:
    base = make(tmp_path / "templates" / "base.qcow2", "qcow2")
    top = tmp_path / "vm" / "top.qcow2"
    top.parent.mkdir()
    argv = ["qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(top)]
    subprocess.run(argv, check=True, capture_output=True)
    path = write_domain(tmp_path / "vm" / "a.xml", [FileDisk(top, "qcow2")])
    refused(run, "image-names-other-file", path)
    source = read(run, path, allow_backing=(base.parent,))
    assert source.disks[0].files == (str(top), str(base))


def test_a_slice_of_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 4096 + disk_content())
    path = write_domain(tmp_path / "a.xml", [FileDisk("a", "raw", slice=(4096, 6 * MiB))])
    disk = read(run, path).disks[0]
    assert disk.size == 6 * MiB
    assert (disk.details["offset"], disk.details["length"]) == ("4096", str(6 * MiB))


def test_volumes_need_libvirt(run: Run, tmp_path: Path) -> None:
    path = write_domain(tmp_path / "a.xml", [VolumeDisk("pool", "vol")])
    assert "-i libvirt" in str(refused(run, "domain-disk-volume", path).hint)


def checked_disk(folder: Path, checksum: str) -> LibvirtXmlInput:
    path = write_domain(folder / "a.xml", [FileDisk("a", "qcow2", checksum=checksum)])
    return LibvirtXmlInput(LibvirtXmlOptions(), [str(path)])


def test_a_checksum_is_that_of_what_the_guest_sees(
    run: Run, events_seen: list[Event], tmp_path: Path, make: Make
) -> None:
    make(tmp_path / "a", "qcow2")
    digest = hashlib.sha256(disk_content()).hexdigest()
    input = checked_disk(tmp_path, f"sha256 error {digest.upper()}")
    with input.serve(input.read_source(run), run):
        pass
    assert warnings(events_seen) == []


def test_another_checksum_is_an_error_or_a_warning(
    run: Run, events_seen: list[Event], tmp_path: Path, make: Make
) -> None:
    make(tmp_path / "a", "qcow2")
    input = checked_disk(tmp_path, f"md5 error {'0A' * 16}")
    with pytest.raises(V2VError) as caught, input.serve(input.read_source(run), run):
        pass
    assert caught.value.id == "source-checksum"
    assert "0a" * 16 in caught.value.message
    input = checked_disk(tmp_path, f"md5 warn {'0A' * 16}")
    with input.serve(input.read_source(run), run):
        pass
    assert warnings(events_seen) == ["checksum-differs"]


def test_a_web_server_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    path = write_domain(tmp_path / "a.xml", [WebDisk("127.0.0.1", 1, "/a.img")])
    refused(run, "http-unreachable", path)


def test_the_second_disk_is_missing(run: Run, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a", "raw")
    path = write_domain(tmp_path / "a.xml", [FileDisk("a"), FileDisk("gone")])
    assert "gone" in refused(run, "source-missing", path).message


def test_options_come_from_the_command_line() -> None:
    given = {"-ip": "/p", "-io allow-backing": "/a:/b/c"}
    parsed = options.parse(LibvirtXmlOptions, given, module="-i libvirtxml")
    assert parsed.password_file == Path("/p")
    assert parsed.allow_backing == (Path("/a"), Path("/b/c"))


def test_the_mode_is_found_by_its_name() -> None:
    assert registry.find_input("libvirtxml") is LibvirtXmlInput
