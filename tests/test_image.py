"""Image headers, read by ourselves: right answers for good images, clear errors for the others."""

from __future__ import annotations

import builtins
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes.disks import disk_content, mbr
from v2v import nbd_client, qemu_nbd
from v2v.errors import SourceError, V2VError
from v2v.image import check_raw, magic, qemu_options, read_image, read_remote, vmdk
from v2v.image.reader import FileReader
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB

SIZE = 6 * MiB
KINDS = {
    "qcow2": (),
    "qcow2-old": ("-o", "compat=0.10"),
    "vmdk": ("-o", "subformat=monolithicSparse"),
    "vmdk-stream": ("-o", "subformat=streamOptimized"),
    "vpc": ("-o", "force_size=on"),
    "vpc-fixed": ("-o", "subformat=fixed,force_size=on"),
    "vhdx": (),
    "vdi": (),
}


class Bytes:
    """A reader of bytes in memory; `overlay` replaces some of them."""

    name = "image"

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length] if offset >= 0 else b""


def convert(raw: Path, path: Path, kind: str) -> Path:
    argv = ["qemu-img", "convert", "-f", "raw", "-O", kind.split("-")[0], *KINDS[kind]]
    subprocess.run([*argv, str(raw), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    raw = folder / "raw"
    raw.write_bytes(disk_content())
    return {kind: convert(raw, folder / kind, kind) for kind in KINDS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a VM with a disk in it, and a secret outside."""
    (tmp_path / "secret").write_bytes(disk_content(7))
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "disk").write_bytes(disk_content())
    return tmp_path / "vm"


def qemu_img(*argv: object) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


def refused(path: Path, id: str, **options: object) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


# Good images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_format_and_size_come_from_the_content(images: dict[str, Path], kind: str) -> None:
    image = read_image(images[kind])
    assert (image.format, image.size) == (DiskFormat(kind.split("-")[0]), SIZE)
    assert image.files == (images[kind],)


@pytest.mark.parametrize("kind", KINDS)
def test_remote_images_are_read_alike(images: dict[str, Path], kind: str) -> None:
    image = read_remote(Bytes(images[kind].read_bytes()))
    assert (image.format, image.size) == (DiskFormat(kind.split("-")[0]), SIZE)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"vpc-fixed", "vmdk-stream"}))
def test_large_disks(tmp_path: Path, kind: str) -> None:
    qemu_img("create", "-f", kind.split("-")[0], *KINDS[kind], tmp_path / "x", 1024 * GiB)
    assert read_image(tmp_path / "x").size == 1024 * GiB


def test_backing_files_in_the_same_folder(folder: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "disk", folder / "a")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", "a", folder / "b")
    image = read_image(folder / "b")
    assert image.files == (folder / "b", folder / "a", folder / "disk")
    assert qemu_options(image)["backing.backing.driver"] == "raw"
    assert qemu_options(image)["backing.backing.file.filename"] == str(folder / "disk")


def test_external_data_file_in_the_same_folder(folder: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={folder}/data", folder / "a", SIZE)
    image = read_image(folder / "a")
    assert qemu_options(image)["data-file.filename"] == str(folder / "data")


def test_a_descriptor_ends_at_its_first_zero_byte(folder: Path) -> None:
    """QEMU writes a shorter text over a longer one, whose end stays behind a zero byte."""
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT) + "\0" + 'RW 1 FLAT "/etc/passwd" 0\n')
    assert read_image(folder / "a.vmdk").size == SIZE


# Images that name other files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "json:{}", "nbd://localhost", "file:disk", "/proc/self/mem"],
)
def test_backing_file_elsewhere_is_refused(folder: Path, name: str) -> None:
    path = folder / "a"
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", name, path, SIZE)
    assert name in str(refused(path, "image-names-other-file"))


def test_symlink_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("../secret")
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", "link", folder / "a", SIZE)
    refused(folder / "a", "image-names-other-file")


def test_a_neighbour_folder_with_the_same_beginning_is_outside(folder: Path) -> None:
    other = folder.parent / "vm-other"
    other.mkdir()
    (other / "disk").write_bytes(bytes(SIZE))
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "../vm-other/disk", folder / "a")
    refused(folder / "a", "image-names-other-file")


def test_second_backing_file_elsewhere_is_refused(folder: Path) -> None:
    secret = folder.parent / "secret"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, folder / "a")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", "a", folder / "b")
    refused(folder / "b", "image-names-other-file")


def test_backing_file_elsewhere_is_read_when_allowed(folder: Path) -> None:
    secret = folder.parent / "secret"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, folder / "a")
    assert read_image(folder / "a", allowed=[secret]).files[1] == secret
    assert read_image(folder / "a", allowed=[folder.parent]).files[1] == secret
    refused(folder / "a", "image-names-other-file", allowed=[folder.parent / "sec"])


def test_data_file_elsewhere_is_refused(folder: Path) -> None:
    data = folder.parent / "data"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={data}", folder / "a", SIZE)
    refused(folder / "a", "image-names-other-file")


def test_missing_backing_file(folder: Path) -> None:
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", "gone", folder / "a", SIZE)
    assert "gone" in str(refused(folder / "a", "image-file-missing"))


def test_backing_files_in_a_circle(folder: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        qemu_img("create", "-u", "-f", "qcow2", "-F", "qcow2", "-b", other, folder / one, SIZE)
    with pytest.raises(SourceError, match="no end"):
        read_image(folder / "a")


def test_remote_image_may_name_no_file(folder: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "disk", folder / "a")
    with pytest.raises(SourceError) as caught:
        read_remote(Bytes((folder / "a").read_bytes()))
    assert caught.value.id == "image-names-other-file"


# VMDK descriptors ---------------------------------------------------------------------------------


def descriptor(*lines: str, kind: str = "monolithicFlat") -> str:
    top = ["# Disk DescriptorFile", "version=1", "CID=1", "parentCID=ffffffff"]
    return "\n".join([*top, f'createType="{kind}"', *lines, 'ddb.adapterType = "ide"', ""])


GOOD_EXTENT = f'RW {SIZE // 512} FLAT "disk" 0'


@pytest.mark.parametrize(
    ("lines", "id"),
    [
        (['RW 1 FLAT "/etc/passwd" 0'], "image-names-other-file"),
        (['RW 1 FLAT "../secret" 0'], "image-names-other-file"),
        (['RW 1 FLAT "file:disk" 0'], "image-names-other-file"),
        (['RW 1 FLAT "a\\disk" 0'], "image-names-other-file"),
        (['RW 1 FLAT "gone" 0'], "image-file-missing"),
        (['RW 1 FLAT "." 0'], "image-names-other-file"),
        ([f'RW {SIZE // 512 + 1} FLAT "disk" 0'], "image-truncated"),
        ([f'RW {SIZE // 512} FLAT "disk" 1'], "image-truncated"),
        (['RW 1 SPARSE "disk"'], "image-corrupt"),
        (['RW 1 FLAT "disk" 0 device'], "image-corrupt"),
        (["RW 1 ZERO"], "image-unsupported"),
        (['RW 1 FLAT "disk"'], "image-unsupported"),
        (['RW 1 VMFS "disk" 0'], "image-unsupported"),
        (['RW 1 SPARSE "disk" 0'], "image-unsupported"),
        (['RDONLY 1 FLAT "disk" 0'], "image-unsupported"),
        ([], "image-corrupt"),
        ([GOOD_EXTENT, "something odd"], "image-corrupt"),
        ([GOOD_EXTENT, '# parentFileNameHint="/etc/passwd"'], "image-corrupt"),
        ([GOOD_EXTENT, 'x="parentFileNameHint=y"'], "image-corrupt"),
        ([GOOD_EXTENT, 'parentFileNameHint="/etc/passwd"'], "image-names-other-file"),
        ([GOOD_EXTENT, 'parentFileNameHint = ""'], "image-corrupt"),  # QEMU opens " "
        ([GOOD_EXTENT, "parentFileNameHint=", '#other"'], "image-corrupt"),  # QEMU opens #other
        ([GOOD_EXTENT, "parentFileNameHint=disk"], "image-corrupt"),  # QEMU opens isk...
        ([GOOD_EXTENT, 'PARENTFILENAMEHINT=""'], "image-corrupt"),
        ([GOOD_EXTENT, '# \rRW 1 FLAT "/etc/passwd" 0'], "image-corrupt"),
        (["", GOOD_EXTENT], "image-unsupported"),  # QEMU reads it twice
        ([GOOD_EXTENT, " \t", GOOD_EXTENT], "image-unsupported"),
    ],
)
def test_bad_vmdk_descriptors(folder: Path, lines: list[str], id: str) -> None:
    (folder / "a.vmdk").write_text(descriptor(*lines), newline="")
    refused(folder / "a.vmdk", id)


@pytest.mark.parametrize("kind", ["custom", "fullDevice", "vmfsSparse", "seSparse", ""])
def test_unsupported_vmdk_types(folder: Path, kind: str) -> None:
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT, kind=kind))
    refused(folder / "a.vmdk", "image-unsupported")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_good_vmdk_descriptor(folder: Path, newline: str) -> None:
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT), newline=newline)
    assert read_image(folder / "a.vmdk").files == (folder / "a.vmdk", folder / "disk")


def test_an_extents_name_that_qemu_would_cut_is_refused(folder: Path) -> None:
    """It reads 511 bytes of a name; here these name another file than the whole name does."""
    start = "./" * 251 + "../secret"
    name = f"{start}/../{folder.name}/disk"
    assert (folder / start).exists() and len(start) == 511
    (folder / "a.vmdk").write_text(
        descriptor(f'RW {SIZE // 512} VMFS "{name}"', kind="vmfs"), newline=""
    )
    refused(folder / "a.vmdk", "image-corrupt")


@pytest.mark.parametrize(
    "line",
    [
        'encryptionKeys="vmware:key/list/(pair/(null/%3CVMWARE%2dEMPTYSTRING%3E,HMAC%2dSHA%2d1))"',
        'ddb.iofilters = "vmwarevmcrypt"',
    ],
)
def test_encrypted_vmdk_is_refused(folder: Path, line: str) -> None:
    """To QEMU it is a disk like any other, whose content is what was encrypted."""
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT, line))
    assert "encrypted" in refused(folder / "a.vmdk", "image-unsupported").message
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT, 'encryptionKeys=""'))
    assert read_image(folder / "a.vmdk").size == SIZE


def test_extent_through_a_symlink_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "disk").unlink()
    (folder / "disk").symlink_to("../secret")
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT))
    refused(folder / "a.vmdk", "image-names-other-file")


def test_extent_that_is_a_fifo_is_refused_without_hanging(folder: Path) -> None:
    (folder / "disk").unlink()
    os.mkfifo(folder / "disk")
    (folder / "a.vmdk").write_text(descriptor(GOOD_EXTENT))
    refused(folder / "a.vmdk", "image-names-other-file")


def test_hidden_descriptor_where_qemu_would_find_it(
    images: dict[str, Path], tmp_path: Path
) -> None:
    """QEMU reads the descriptor at sector 1, even if the header says that it is elsewhere."""
    content = bytearray(images["vmdk"].read_bytes())
    struct.pack_into("<Q", content, 28, 5)
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", "image-corrupt")


def test_part_of_a_split_vmdk_is_told_apart(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "split.vmdk"
    options = "subformat=twoGbMaxExtentSparse"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", options, folder / "disk", target)
    refused(tmp_path / "split-s001.vmdk", "image-unsupported")
    assert read_image(target).size == SIZE


# Truncated, corrupt, foreign ----------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "raw"])
def test_a_truncated_image_is_told(
    images: dict[str, Path], tmp_path: Path, kind: str, share: float
) -> None:
    content = images[kind].read_bytes()
    (tmp_path / "a").write_bytes(content[: int(len(content) * share) // 512 * 512])
    forced = DiskFormat(kind.split("-")[0])
    if kind == "vpc-fixed":  # its only mark comes last, so that without -if it is a raw disk
        refused(tmp_path / "a", "image-format-wrong", format=forced)
    else:
        refused(tmp_path / "a", "image-truncated", format=forced)


@pytest.mark.parametrize(("offset", "value"), [(4, 9), (20, 3), (20, 60), (36, 0), (79, 2)])
def test_a_corrupt_qcow2_header_is_told(
    images: dict[str, Path], tmp_path: Path, offset: int, value: int
) -> None:
    content = bytearray(images["qcow2"].read_bytes())
    if offset == 79:
        content[79] = value  # the corrupt bit
    else:
        struct.pack_into(">I", content, offset, value)
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", "image-corrupt")


def test_wrong_forced_format(images: dict[str, Path]) -> None:
    error = refused(images["qcow2"], "image-format-wrong", format=DiskFormat.VMDK)
    assert "qcow2" in str(error)


def raw_refused(head: bytes, *, strict: bool = True, size: int | None = None) -> SourceError:
    reader = Bytes(head.ljust(magic.HEAD, b"\1"))
    reader.size = size or reader.size
    with pytest.raises(SourceError) as caught:
        check_raw(reader, reader.content, strict=strict)
    return caught.value


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"\x7fELF\2\1\1", "ELF"),
        (b"PK\3\4", "ZIP"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
        (b"COWD", "vmfsSparse"),
        (b"x" * 257 + b"ustar", "tar"),
        ("Straße\n".encode() * 9000, "text"),
        (b"hello world\r\n" * 9000, "text"),
    ],
)
def test_other_files_are_no_disks(head: bytes, what: str) -> None:
    error = raw_refused(head, strict=False)
    assert error.id == "not-a-disk-image"
    assert what in str(error)


def test_only_a_strict_look_refuses_unknown_content() -> None:
    assert raw_refused(b"\1\2\3").id == "not-a-disk-image"
    check_raw(Bytes(b"\1" * magic.HEAD), b"\1" * magic.HEAD, strict=False)


@pytest.mark.parametrize("head", [bytes(512), mbr(), bytes(0x438) + b"\x53\xef", b"XFSB"])
def test_disks_look_like_disks(head: bytes) -> None:
    assert magic.looks_like_disk(head.ljust(magic.HEAD, b"\0"))


def test_a_raw_disk_shorter_than_its_partitions_is_truncated() -> None:
    head = mbr((0x83, 2048, GiB // 512))
    assert raw_refused(head, size=GiB // 2).id == "image-truncated"
    gpt = mbr((0xEE, 1, 2**32 - 1)) + b"EFI PART".ljust(32, b"\0") + struct.pack("<Q", GiB // 512)
    assert raw_refused(gpt, size=GiB // 2).id == "image-truncated"


# Hostile bytes ------------------------------------------------------------------------------------

quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that this thread opens during the test; what others do is not the test's."""
    paths: list[str] = []
    real_open, real_os_open, ours = builtins.open, os.open, threading.get_ident()

    def note(path: object) -> None:
        if threading.get_ident() == ours:
            paths.append(str(path))

    def watch_os(path: object, *args: object, **kwargs: object) -> int:
        note(path)
        return real_os_open(path, *args, **kwargs)  # type: ignore[arg-type]

    def watch(path: object, *args: object, **kwargs: object) -> object:
        note(path)
        return real_open(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", watch_os)
    monkeypatch.setattr(builtins, "open", watch)
    yield paths


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(data=st.data())
def test_a_mutated_image_is_read_or_refused(
    images: dict[str, Path], tmp_path: Path, opened: list[str], kind: str, data: st.DataObject
) -> None:
    content = bytearray(images[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        near = st.integers(0, 700) | st.integers(-600, -1) | st.integers(0, 300 * 1024)
        at = data.draw(near) % len(content)
        patch = data.draw(st.binary(min_size=1, max_size=9) | st.just(b"\xff" * 8))
        content[at : at + len(patch)] = patch
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "a"
    path.write_bytes(content)
    del opened[:]
    try:
        image = read_image(path, data.draw(st.sampled_from([None, DiskFormat(kind.split("-")[0])])))
        assert image.size is None or 0 <= image.size <= 1 << 60
        assert all(file.is_relative_to(tmp_path) for file in image.files)
    except V2VError:
        pass
    assert all(Path(one).is_relative_to(tmp_path) for one in opened)


@quick
@given(
    st.lists(
        st.sampled_from(
            [
                GOOD_EXTENT,
                'RW 1 FLAT "/etc/passwd" 0',
                'RW 1 SPARSE "../secret"',
                'parentFileNameHint="/etc/shadow"',
                "parentCID=1",
                "\r",
                "\0",
                '"',
            ]
        )
        | st.text(max_size=30),
        max_size=6,
    )
)
@example(['RW 1 FLAT "/etc/passwd" 0'])
def test_a_hostile_descriptor_names_nothing_outside(
    folder: Path, opened: list[str], lines: list[str]
) -> None:
    text = descriptor(*lines).encode("utf-8", "surrogatepass")
    (folder / "a.vmdk").write_bytes(text)
    del opened[:]
    try:
        image = read_image(folder / "a.vmdk")
        assert all(file.parent == folder for file in image.files)
    except V2VError:
        pass
    assert all(Path(one).is_relative_to(folder) for one in opened)


@quick
@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    reader = Bytes(raw)
    for format in (None, *DiskFormat):
        try:
            read_remote(reader, format)
            check_raw(reader, raw, strict=True)
        except V2VError:
            pass


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        FileReader(tmp_path / "gone")
    assert caught.value.id == "source-unreadable"


def test_descriptor_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_bytes(vmdk.DESCRIPTOR_MAGIC + b"\n" * MiB)
    refused(path, "image-corrupt")


def test_a_backing_file_that_we_did_not_see_is_not_opened(tmp_path: Path, run: Run) -> None:
    """As of an image that was changed after it was checked."""
    (tmp_path / "secret").write_bytes(b"secret".ljust(MiB, b"\1"))
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", path, MiB)
    options = qemu_options(read_image(path))
    path.unlink()
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret", path, MiB)
    with qemu_nbd.serve(options, run=run, name="swapped") as socket:
        endpoint = nbd_client.describe(socket)
        with nbd_client.ExportReader(endpoint, "swapped") as reader:
            assert reader.read(0, MiB) == bytes(MiB)
