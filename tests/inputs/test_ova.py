"""-i ova: what names a package, what is refused, checksums, and what is left behind."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from fixtures.ova import manifest_text, write_ova
from fixtures.ovf import OvfImage, write_ovf
from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from tests.inputs.test_disk import holding
from v2v import options
from v2v.cancel import Cancel
from v2v.errors import Cancelled, V2VError
from v2v.events import Event, StepStarted, Warned
from v2v.inputs._archive.package import Checksums
from v2v.inputs._plain import ImageOptions
from v2v.inputs.disk import DiskInput
from v2v.inputs.ova import OvaInput, OvaOptions
from v2v.run import Run
from v2v.types import DiskFormat, MiB, Source

CONTENT = disk_content()
ARCHIVES = ("tar", "tar.gz", "zip", "zip-deflated")
ALL = (*ARCHIVES, "folder")


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(parts: Path) -> Path:
    path = parts / "disk1.img"
    path.write_bytes(CONTENT)
    return path


def ovf(parts: Path, *hrefs: str, capacity: int = len(CONTENT), name: str = "web.ovf") -> Path:
    images = [OvfImage(href, capacity) for href in hrefs or ("disk1.img",)]
    return write_ovf(parts / name, "vsphere", images)


def package(parts: Path, kind: str, files: Mapping[str, Path] | None = None, **how: object) -> Path:
    files = files or {"web.ovf": ovf(parts), "disk1.img": parts / "disk1.img"}
    return write_ova(parts.parent / "web.ova", kind, files, **how)  # type: ignore[arg-type]


def ova(*words: object, **given: object) -> OvaInput:
    return OvaInput(OvaOptions(**given), [str(word) for word in words])  # type: ignore[arg-type]


def read(run: Run, *words: object, **given: object) -> Source:
    return ova(*words, **given).read_source(run)


def serve(run: Run, *words: object, **given: object) -> list[bytes]:
    """What the disks hold."""
    one = ova(*words, **given)
    with one.serve(one.read_source(run), run) as endpoints:
        return [read_all(endpoint) for endpoint in endpoints]


def refused(run: Run, id: str, *words: object, **given: object) -> V2VError:
    """A package that must be refused when it is read, or when it is served; nothing is left."""
    with pytest.raises(V2VError) as caught:
        serve(run, *words, **given)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    nothing_left(run)
    return caught.value


def nothing_left(run: Run) -> None:
    assert children() == set()
    assert list(run.tmp.iterdir()) == []
    assert {path.name for path in run.folder.iterdir()} <= {"journal", "tmp", "log"}


def warnings(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, Warned)]


# What names a package ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_the_name_of_a_file_says_nothing(kind: str, parts, disk, run: Run) -> None:
    path = package(parts, kind).rename(parts.parent / "copy.bin")
    assert serve(run, path) == [CONTENT]


def test_an_ovf_file_is_read_with_its_folder(parts, disk, run: Run) -> None:
    path = package(parts, "folder")
    assert serve(run, path / "web.ovf") == [CONTENT]
    link = parts.parent / "link.ovf"
    link.symlink_to(path / "web.ovf")
    assert serve(run, link) == [CONTENT]


def test_one_package_at_a_time(run: Run) -> None:
    assert refused(run, "guests-too-many", "a.ova", "b.ova").exit_code == 2


@pytest.mark.parametrize("word", ["nbd://localhost/web", "ftp://localhost/web.ova"])
def test_other_addresses_are_refused(run: Run, word: str) -> None:
    refused(run, "uri-scheme", word)


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    refused(run, "source-missing", tmp_path / "web.ova")


def test_a_pipe_is_not_opened(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "web.ova")
    refused(run, "source-not-a-file", tmp_path / "web.ova")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"QFI\xfb" + bytes(1000), "qcow2"),
        (CONTENT, "no tar or zip archive"),
        (gzip.compress(CONTENT), "compressed with gzip"),
        (bz2.compress(b"data"), "bzip2"),
        (b"hello, this is a text", "text"),
        (b"short", "text"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
    ids=["qcow2", "raw", "raw.gz", "bzip2", "text", "short", "cut"],
)
def test_what_is_no_package_is_told(run: Run, tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "web.ova"
    path.write_bytes(content)
    assert what in refused(run, "ova-not-an-ova", path).message


def test_input_disk_tells_of_this_mode(parts, disk, run: Run) -> None:
    for kind in ("tar", "zip"):
        path = package(parts, kind)
        with pytest.raises(V2VError) as caught:
            DiskInput(ImageOptions(), [str(path)]).read_source(run)
        assert "-i ova" in (caught.value.hint or "")


def test_options_come_from_the_command_line(tmp_path: Path) -> None:
    words = {"-io checksums": "metadata", "-io allow-backing": "/a:/b", "-ip": "/c"}
    found = options.parse(OvaOptions, words, module="-i ova")
    assert found == OvaOptions(
        checksums=Checksums.METADATA,
        allow_backing=(Path("/a"), Path("/b")),
        password_file=Path("/c"),
    )
    with pytest.raises(V2VError, match="check, metadata, no"):
        options.parse(OvaOptions, {"-io checksums": "maybe"}, module="-i ova")


# Which OVF --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_several_ovfs_side_by_side_are_refused(kind: str, parts, disk, run: Run) -> None:
    files = {"a.ovf": ovf(parts), "disk1.img": disk, "b.ovf": ovf(parts)}
    error = refused(run, "ova-several-ovf", package(parts, kind, files))
    assert "'a.ovf', 'b.ovf'" in error.message


@pytest.mark.parametrize("kind", ALL)
def test_the_only_ovf_may_be_in_a_folder_with_its_disks(kind: str, parts, disk, run: Run) -> None:
    files = {"vm/web.ovf": ovf(parts), "vm/disk1.img": disk}
    path = package(parts, kind, files, manifest=None)
    assert serve(run, path) == [CONTENT]


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_the_nearest_to_the_top_counts(kind: str, parts, disk, run: Run) -> None:
    bad = parts / "bad"
    bad.write_text("no OVF")
    files = {"old/web.ovf": bad, "web.ovf": ovf(parts), "disk1.img": disk, "._web.ovf": bad}
    assert serve(run, package(parts, kind, files, manifest=None)) == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_without_an_ovf_the_files_are_named(kind: str, parts, disk, run: Run) -> None:
    path = package(parts, kind, {"disk1.img": disk}, manifest=None)
    assert "'disk1.img'" in refused(run, "ova-no-ovf", path).message


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz"])
def test_the_ovf_may_come_last_in_a_compressed_archive(kind: str, parts, disk, run: Run) -> None:
    files = {"disk1.img": disk, "web.ovf": ovf(parts)}
    assert serve(run, package(parts, kind, files, manifest=None)) == [CONTENT]


def test_a_huge_ovf_is_refused(parts, disk, run: Run) -> None:
    big = parts / "big.ovf"
    big.write_bytes(b"<a>" + bytes(17 * MiB))
    for kind in ("tar", "tar.gz", "zip-deflated", "folder"):
        path = write_ova(parts.parent / f"{kind}.ova", kind, {"web.ovf": big, "disk1.img": disk})
        refused(run, "ova-too-large", path)


# Which disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "href",
    [
        "/etc/shadow",
        "../disk1.img",
        "a/../../disk1.img",
        "http://localhost/disk1.img",
        "file:///etc/shadow",
        "..\\disk1.img",
        "%2e%2e/disk1.img",
        "%2fetc%2fshadow",
    ],
)
def test_disks_elsewhere_are_refused(kind: str, href: str, parts, disk, run: Run) -> None:
    files = {"web.ovf": ovf(parts, href), "disk1.img": disk}
    error = refused(run, "ova-names-other-file", package(parts, kind, files))
    assert href.encode("unicode_escape").decode() in error.message


@pytest.mark.parametrize("kind", ALL)
def test_a_missing_disk_is_told_with_what_is_there(kind: str, parts, disk, run: Run) -> None:
    files = {"web.ovf": ovf(parts, "disk2.img"), "disk1.img": disk}
    error = refused(run, "ova-disk-missing", package(parts, kind, files))
    assert "disk2.img" in error.message
    assert "'disk1.img'" in error.message


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("disk1.img", "disk1.img.000000000"),
        ("a%20disk.img", "a disk.img"),
        ("a%20disk.img", "a%20disk.img"),
        ("./disk1.img", "disk1.img"),
        ("sub/disk1.img", "sub/disk1.img"),
    ],
)
def test_spellings_of_names(kind: str, href: str, name: str, parts, disk, run: Run) -> None:
    files = {"web.ovf": ovf(parts, href), name: disk}
    assert serve(run, package(parts, kind, files)) == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_a_disk_that_was_gzipped_later_is_found(kind: str, parts, disk, run: Run) -> None:
    packed = parts / "packed"
    packed.write_bytes(gzip.compress(CONTENT, 1))
    files = {"web.ovf": ovf(parts), "disk1.img.gz": packed}
    assert serve(run, package(parts, kind, files)) == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_a_disk_in_several_chunks_is_refused_with_what_to_do(kind, parts, disk, run: Run) -> None:
    names = ["disk1.img.000000000", "disk1.img.000000001"]
    files = {"web.ovf": ovf(parts), names[0]: disk, names[1]: disk}
    assert "cat" in (refused(run, "ova-chunks", package(parts, kind, files)).hint or "")


@pytest.mark.parametrize("kind", ALL)
def test_two_disks_may_be_one_file(kind: str, parts, disk, run: Run) -> None:
    files = {"web.ovf": ovf(parts, "disk1.img", "disk1.img"), "disk1.img": disk}
    assert serve(run, package(parts, kind, files)) == [CONTENT, CONTENT]


@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("mode", ["w:", "w:gz"])
@pytest.mark.parametrize("name", ["web.ovf", "disk1.img"])
def test_links_in_archives_are_not_followed(name, mode, type, parts, disk, run: Run) -> None:
    path = parts.parent / "web.ova"
    with tarfile.open(path, mode) as archive:
        for file in (ovf(parts), disk):
            info = tarfile.TarInfo(file.name)
            if file.name == name:
                info.type, info.linkname = type, "/etc/hostname"
                archive.addfile(info)
            else:
                archive.add(file, file.name)
    assert name in refused(run, "ova-not-a-file", path).message


def test_links_out_of_a_folder_need_leave(parts, disk, run: Run, tmp_path: Path) -> None:
    path = package(parts, "folder")
    outside = tmp_path / "outside.img"
    (path / "disk1.img").rename(outside)
    (path / "disk1.img").symlink_to(outside)
    refused(run, "ova-names-other-file", path)
    assert serve(run, path, allow_backing=(outside,)) == [CONTENT]


def test_a_folder_may_have_another_name_by_a_link(parts, disk, run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package(parts, "folder"))
    assert serve(run, tmp_path / "link") == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_images_that_name_other_files_are_refused(kind: str, parts, disk, run: Run) -> None:
    secret = parts.parent / "secret"
    secret.write_bytes(CONTENT)
    top = parts / "top.qcow2"
    argv = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(top)]
    subprocess.run(argv, check=True, capture_output=True)
    path = package(parts, kind, {"web.ovf": ovf(parts), "disk1.img": top})
    refused(run, "image-names-other-file", path)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_images_in_archives_do_not_even_name_files_beside_them(kind, parts, disk, run) -> None:
    top = parts / "top.qcow2"
    argv = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", "disk1.img", str(top)]
    subprocess.run(argv, check=True, capture_output=True)
    files = {"web.ovf": ovf(parts, "disk1.img", "top.qcow2"), "disk1.img": disk, "top.qcow2": top}
    refused(run, "image-names-other-file", package(parts, kind, files))


@pytest.mark.parametrize("kind", ALL)
def test_what_the_image_is_counts_more_than_what_the_ovf_says(
    kind: str, parts, disk, run: Run, events_seen: list[Event]
) -> None:
    files = {"web.ovf": ovf(parts, capacity=MiB), "disk1.img": disk}
    path = package(parts, kind, files)
    assert serve(run, path) == [CONTENT]
    assert set(warnings(events_seen)) == {"ova-format-differs", "ova-size-differs"}


def test_disks_in_place_are_parts_of_the_archive(parts, disk, run: Run) -> None:
    path = package(parts, "tar")
    (found,) = read(run, path).disks
    assert found.location == str(path)
    assert (found.format, found.size) == (DiskFormat.RAW, len(CONTENT))
    assert found.files == (str(path),)
    start = int(found.details["offset"])
    assert path.read_bytes()[start : start + len(CONTENT)] == CONTENT


# Damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "id"),
    [("tar", "ova-truncated"), ("tar.gz", "ova-truncated"), ("zip", "ova-truncated")],
)
def test_a_package_that_was_not_copied_to_its_end(kind: str, id: str, parts, disk, run) -> None:
    path = package(parts, kind)
    os.truncate(path, path.stat().st_size * 2 // 3)
    refused(run, "ova-truncated", path)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip-deflated"])
def test_damage_in_a_compressed_package_is_seen_without_a_manifest(kind, parts, disk, run) -> None:
    path = package(parts, kind, manifest=None)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage")
    refused(run, "ova-damaged", path)


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_two_files_of_one_name_are_refused(mode: str, parts, disk, run: Run) -> None:
    path = parts.parent / "web.ova"
    with tarfile.open(path, mode) as archive:
        for file in (ovf(parts), disk, disk):
            archive.add(file, file.name)
    refused(run, "ova-duplicate", path)


# Manifests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("kind", ALL)
def test_packages_with_manifest_and_certificate(kind, algorithm, parts, disk, run: Run) -> None:
    path = package(parts, kind, manifest=algorithm, certificate=True)
    assert serve(run, path) == [CONTENT]
    nothing_left(run)


def with_manifest(parts: Path, kind: str, text: str, *, late: bool = False) -> Path:
    """A package whose manifest, after the OVF or at the end, is the text."""
    manifest = parts / "web.mf"
    manifest.write_text(text)
    files = {"web.ovf": ovf(parts), "web.mf": manifest, "disk1.img": parts / "disk1.img"}
    if late:
        files["web.mf"] = files.pop("web.mf")
    return package(parts, kind, files, manifest=None)


def wrong(parts: Path, name: str, algorithm: str = "sha256") -> str:
    """A manifest that is right but for one file."""
    files = {"web.ovf": ovf(parts), "disk1.img": parts / "disk1.img"}
    right = manifest_text(files, algorithm)
    own = manifest_text({name: files[name]}, algorithm)
    return right.replace(own, own[:-5] + ("0000\n" if own[-5:] != "0000\n" else "1111\n"))


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ALL)
def test_an_ovf_that_differs_is_an_error(kind: str, late: bool, parts, disk, run: Run) -> None:
    path = with_manifest(parts, kind, wrong(parts, "web.ovf"), late=late)
    assert "web.ovf" in refused(run, "ova-checksum", path).message
    if "tar." not in kind:
        with pytest.raises(V2VError):
            read(run, path)
        refused(run, "ova-checksum", path, checksums=Checksums.METADATA)
    assert serve(run, path, checksums=Checksums.NO) == [CONTENT]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ALL)
def test_a_disk_that_differs_is_an_error_once_it_was_read(
    kind: str, late: bool, algorithm: str, parts, disk, run: Run
) -> None:
    path = with_manifest(parts, kind, wrong(parts, "disk1.img", algorithm), late=late)
    read(run, path)
    error = refused(run, "ova-checksum", path)
    assert "disk1.img" in error.message
    assert algorithm in error.message
    for how in (Checksums.METADATA, Checksums.NO):
        assert serve(run, path, checksums=how) == [CONTENT]


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_what_is_only_looked_at_is_not_compared(kind: str, parts, disk, run: Run) -> None:
    run.reads_all = False
    assert serve(run, with_manifest(parts, kind, wrong(parts, "disk1.img"))) == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_a_manifest_that_is_too_large_is_an_error(kind: str, parts, disk, run: Run) -> None:
    """Passed over, it would check nothing."""
    (parts / "web.mf").write_bytes(b"\n" * (MiB + 1))
    files = {"web.ovf": ovf(parts), "web.mf": parts / "web.mf", "disk1.img": disk}
    refused(run, "ova-too-large", package(parts, kind, files, manifest=None))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_manifest_that_is_a_link_is_an_error(kind: str, parts, disk, run: Run) -> None:
    path = parts.parent / "web.ova"
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        archive.add(ovf(parts), "web.ovf")
        link = tarfile.TarInfo("web.mf")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(disk, "disk1.img")
    refused(run, "ova-not-a-file", path)


@pytest.mark.parametrize("kind", ALL)
def test_a_manifest_that_is_none_is_an_error(kind: str, parts, disk, run: Run) -> None:
    path = with_manifest(parts, kind, "SHA256(web.ovf) nonsense\n")
    assert "line 1" in refused(run, "ova-manifest-invalid", path).message
    assert serve(run, path, checksums=Checksums.NO) == [CONTENT]


@pytest.mark.parametrize("kind", ALL)
def test_what_a_manifest_cannot_check_is_a_warning(
    kind: str, parts, disk, run: Run, events_seen: list[Event]
) -> None:
    lines = [f"SHA256({name})= {'0' * 64}\n" for name in ("gone.iso", "../x", "/etc/shadow")]
    path = with_manifest(parts, kind, "".join(lines) + "WHIRLPOOL(disk1.img)= 00\n")
    assert serve(run, path) == [CONTENT]
    found = warnings(events_seen)
    assert found.count("ova-manifest-missing") == found.count("ova-manifest-algorithm") == 1


def test_a_manifest_of_another_name_is_taken_when_it_is_the_only_one(parts, disk, run) -> None:
    manifest = parts / "m"
    manifest.write_text(wrong(parts, "web.ovf"))
    files = {"web.ovf": ovf(parts), "other.mf": manifest, "disk1.img": disk}
    refused(run, "ova-checksum", package(parts, "tar", files, manifest=None))


# On the web -------------------------------------------------------------------------------------


def test_an_archive_in_place_needs_ranges(parts, disk, run: Run) -> None:
    path = package(parts, "tar")
    with serve_folder(path.parent, ranges=False) as address:
        error = refused(run, "http-no-ranges", f"{address}/{path.name}")
        assert "download" in (error.hint or "")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz"])
def test_a_lost_connection_is_told(kind: str, parts, disk, run: Run) -> None:
    path = package(parts, kind)
    with serve_folder(path.parent, ranges=False, cut=path.stat().st_size // 2) as address:
        error = refused(run, "http-unreachable", f"{address}/{path.name}")
        assert "bytes" in error.message


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_the_password_goes_to_no_other_server(kind: str, parts, disk, run: Run, tmp_path) -> None:
    path = package(parts, kind)
    (tmp_path / "password").write_text("secret\n")
    login = ("joe", "secret")  # both servers want it: who does not get it answers with 401
    with (
        serve_folder(path.parent, login=login) as other,
        serve_folder(path.parent, login=login, moved=other) as server,
    ):
        url = f"{server}/moved/{path.name}".replace("://", "://joe@")
        error = refused(run, "http-unreachable", url, password_file=tmp_path / "password")
    assert "401" in error.message


def test_nothing_is_there(run: Run, tmp_path: Path) -> None:
    with serve_folder(tmp_path) as address:
        refused(run, "http-unreachable", f"{address}/web.ova")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_login(kind: str, parts, disk, run: Run, tmp_path: Path) -> None:
    path = package(parts, kind)
    password = tmp_path / "password"
    password.write_text("secret\n")
    with serve_folder(path.parent, login=("user", "secret")) as address:
        url = f"{address}/{path.name}"
        refused(run, "http-unreachable", url)
        asked = url.replace("http://", "http://user@")
        assert serve(run, asked, password_file=password) == [CONTENT]


def test_disks_in_place_are_not_compared_and_that_is_told(
    parts, disk, run: Run, events_seen: list[Event]
) -> None:
    path = with_manifest(parts, "tar", wrong(parts, "disk1.img"))
    with serve_folder(path.parent) as address:
        assert serve(run, f"{address}/{path.name}") == [CONTENT]
        assert "ova-disks-unchecked" in warnings(events_seen)
        events_seen.clear()
        serve(run, f"{address}/{path.name}", checksums=Checksums.METADATA)
        assert "ova-disks-unchecked" not in warnings(events_seen)


# What is left behind, and what a second run finds -----------------------------------------------


@pytest.mark.parametrize("kind", ["tar.gz", "zip-deflated"])
def test_what_a_killed_run_unpacked_is_removed(kind: str, parts, disk, run: Run) -> None:
    (run.folder / "unpacked").mkdir()
    (run.folder / "unpacked" / "0").write_text("half a disk")
    assert serve(run, package(parts, kind)) == [CONTENT]
    nothing_left(run)


@pytest.mark.parametrize("kind", ["tar.gz", "zip-deflated"])
def test_cancelling_while_it_is_unpacked(kind: str, parts, disk, tmp_path: Path) -> None:
    cancel = Cancel()

    def emit(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "unpack":
            cancel.cancel()

    with Run.create(tmp_path / "jobs", "test", emit=emit, cancel=cancel) as run:
        with pytest.raises(Cancelled):
            serve(run, package(parts, kind))
        nothing_left(run)


@pytest.mark.parametrize("kind", ["tar.gz", "zip-deflated"])
def test_too_little_space_is_told_before_it_is_used(kind, parts, disk, small: Path) -> None:
    disk.write_bytes(bytes(20 * MiB))
    path = package(parts, kind)
    with Run.create(small / "jobs", "test") as run:
        error = refused(run, "no-space-jobs", path)
        assert "20 MiB" in error.message


def test_holes_stay_holes(parts, disk, run: Run) -> None:
    disk.write_bytes(CONTENT + bytes(64 * MiB))
    one = ova(package(parts, "tar.gz"))
    with one.serve(one.read_source(run), run) as (endpoint,):
        assert endpoint.file is not None
        assert endpoint.file.stat().st_blocks * 512 < len(CONTENT) // 2
        assert endpoint.size == len(CONTENT) + 64 * MiB


@pytest.mark.parametrize("kind", ALL)
def test_a_package_that_changed_is_another_source(kind: str, parts, disk, run: Run) -> None:
    path = package(parts, kind)
    before = read(run, path)
    assert read(run, path) == before
    changed = path / "disk1.img" if path.is_dir() else path
    os.utime(changed, ns=(0, 1))
    assert read(run, path) != before


def test_a_package_that_is_written_is_refused(parts, disk, run: Run) -> None:
    path = package(parts, "tar.gz")
    with holding(path, "f = open(path, 'r+b')"):
        with pytest.raises(V2VError) as caught:
            read(run, path)
        assert caught.value.id == "source-in-use"


def test_a_zip_with_a_disk_in_place_and_one_deflated(parts, disk, run: Run) -> None:
    import zipfile

    path = parts.parent / "web.ova"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(ovf(parts, "a.img", "b.img"), "web.ovf", zipfile.ZIP_DEFLATED)
        archive.write(disk, "a.img", zipfile.ZIP_STORED)
        archive.write(disk, "b.img", zipfile.ZIP_DEFLATED)
    first, second = read(run, path).disks
    assert "offset" in first.details
    assert "container" in second.details
    assert serve(run, path) == [CONTENT, CONTENT]


def test_names_that_are_no_utf8(parts, disk, run: Run) -> None:
    path = parts.parent / "web.ova"
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(ovf(parts), "web.ovf")
        info = tarfile.TarInfo("other-\udcff\x1b[31m")
        archive.addfile(info, io.BytesIO())
        archive.add(disk, "disk1.img")
    assert serve(run, path) == [CONTENT]
