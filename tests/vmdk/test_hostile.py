"""Files that lie: one clear error, or what QEMU reads too, and never much time or memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fixtures import vmdk
from fixtures.vmdk import hosted_sparse, write_vmdk
from tests.vmdk.disks import changed, check_file, content, make_by_qemu, read
from v2v.errors import SourceError, V2VError
from v2v.types import KiB, MiB
from v2v.vmdk import LocalStore, open_disk
from v2v.vmdk.chain import open_chain
from v2v.vmdk.names import Names
from v2v.vmdk.reads import Reads
from v2v.vmdk.tables import Cache, Tables

SIZE = 4 * MiB
BASE = content(3, SIZE)
TOP = changed(BASE, 1)
KINDS = ("vmfsSparse", "seSparse", "monolithicSparse", "streamOptimized", "vmfs")


def make(folder: Path, kind: str) -> tuple[Path, Path]:
    """A disk, and the file whose bytes are its tables."""
    if kind == "streamOptimized":
        folder.mkdir(exist_ok=True)
        path = make_by_qemu(TOP, folder / "top.vmdk", f"subformat={kind}")
        return path, path
    write_vmdk(folder, "base", BASE)
    below = None if kind == "vmfs" else BASE
    path = write_vmdk(
        folder,
        "top",
        TOP,
        kind=kind,
        below=below,
        parent="base.vmdk" if below else None,
        cid=2,
        parent_cid=1 if below else 0xFFFFFFFF,
    )
    return path, folder / f"top{vmdk.KINDS[kind][1]}.vmdk"


def ours(path: Path) -> bytes | None:
    """The content, None if it is refused; of a disk that says it is much larger, its ends."""
    with LocalStore() as store:
        try:
            disk = open_disk(store, str(path))
            list(islice(disk.extents(0, disk.size), 10_000))
            if disk.size <= 2 * SIZE:
                return read(disk)
            read(disk, disk.size - SIZE, SIZE)
            return read(disk, 0, SIZE)
        except V2VError as exc:
            assert exc.hint or exc.id == "source-read"
            return None


def by_qemu(path: Path) -> bytes | None:
    out = path.with_name("out.raw")
    argv = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(path), str(out)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    return out.read_bytes() if done.returncode == 0 else None


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed (make setup installs it)")
    folder = tmp_path_factory.mktemp("hostile")
    return {kind: make(folder / kind, kind) for kind in KINDS}


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
@pytest.mark.parametrize("kind", KINDS[:4])
@given(data=st.data())
def test_damaged_headers_and_tables(
    originals: dict[str, tuple[Path, Path]], kind: str, data: st.DataObject
) -> None:
    path, tables = originals[kind]
    good = tables.read_bytes()
    # Where QEMU does not compare two directories, and this file has both.
    region = 2 * KiB if kind == "streamOptimized" else min(len(good), 160 * KiB)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 255) | st.integers(0, region - 8))
        bad[at : at + 8] = data.draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([b"\xff" * 8, bytes(8), b"\1" + bytes(7), b"\xff" * 4])
        )
    try:
        tables.write_bytes(bad[: len(good)])
        found = ours(path)
        if found is None or len(found) != SIZE:
            return
        theirs = by_qemu(path)
        assert theirs is None or len(theirs) != SIZE or found == theirs
    finally:
        tables.write_bytes(good)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.differing_executors],
)
@pytest.mark.parametrize("kind", ["vmfs", "seSparse"])
@given(data=st.data())
def test_damaged_descriptors(
    originals: dict[str, tuple[Path, Path]], kind: str, data: st.DataObject
) -> None:
    """What is read is the disk, or the disk of the parent that the text names."""
    path, _ = originals[kind]
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 12))
    bad = good[:at] + data.draw(st.binary(max_size=12)) + good[at + cut :]
    try:
        path.write_bytes(bad)
        found = ours(path)
        assert found is None or found == TOP[: len(found)]
    finally:
        path.write_bytes(good)


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"KDMV")
@example(b"# Disk DescriptorFile")
@example(b"# Disk DescriptorFile\n\0")
@example(b'# Disk DescriptorFile\ncreateType="vmfs"\nRW 0 VMFS "file"\n')
def test_any_bytes_as_a_descriptor(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for start in (b"", b"# Disk DescriptorFile\n", b"KDMV\1\0\0\0"):
        (folder / "file").write_bytes(start + raw)
        assert ours(folder / "file") is None


# What is damaged in known ways -------------------------------------------------------------------


def patched(data: Path, offset: int, layout: str, *values: int) -> None:
    raw = bytearray(data.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    data.write_bytes(raw)


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


def refused(path: Path, id: str, *, opens: bool = True) -> SourceError:
    """Said before any data is read: when it is opened, or when asked what is allocated."""
    with LocalStore() as store, pytest.raises(SourceError) as caught:
        disk = open_disk(store, str(path))
        assert opens
        list(disk.extents(0, disk.size))
    assert caught.value.id == id, caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("kind", "offset", "layout", "value", "id"),
    [
        ("vmfsSparse", 16, "<I", 3, "image-corrupt"),  # sectors of a grain
        ("vmfsSparse", 20, "<I", 1 << 31, "image-truncated"),  # directory
        ("vmfsSparse", 24, "<I", 0xFFFFFFFF, "image-corrupt"),  # its entries
        ("vmfsSparse", 12, "<I", 1, "image-corrupt"),  # less than the descriptor says
        ("vmfsSparse", 4 * 512, "<I", 0xFFFFFFFF, "image-truncated"),  # a table
        ("vmfsSparse", 5 * 512, "<I", 0xFFFFFFFF, "image-truncated"),  # a grain
        ("vmfsSparse", 5 * 512, "<I", 1, "image-corrupt"),
        ("seSparse", 8, "<Q", 1, "image-unsupported"),
        ("seSparse", 128, "<Q", 0, "image-corrupt"),  # the directory
        ("seSparse", 144, "<Q", 0, "image-corrupt"),  # the tables
        ("seSparse", 192, "<Q", 0, "image-corrupt"),  # the grains
        ("seSparse", 512 + 24, "<Q", 1, "image-unsupported"),  # a journal
        ("seSparse", 8 * 512, "<Q", 1, "image-corrupt"),
        ("seSparse", 8 * 512, "<Q", 0x10000000FFFFFFFF, "image-truncated"),
        ("seSparse", 9 * 512, "<Q", 4 << 60, "image-corrupt"),
        ("seSparse", 9 * 512, "<Q", 1, "image-corrupt"),
        ("seSparse", 9 * 512, "<Q", 0x3FFFFFFFFFFFFFFF, "image-truncated"),
        ("monolithicSparse", 12, "<Q", 1 << 62, "image-corrupt"),
        ("monolithicSparse", 20, "<Q", 3, "image-corrupt"),
        ("monolithicSparse", 44, "<I", 0, "image-corrupt"),
        ("monolithicSparse", 77, "<H", 1, "image-corrupt"),  # compressed, says one of two
        ("monolithicSparse", 56, "<Q", 1 << 40, "image-truncated"),
    ],
)
def test_bad_headers_and_tables(
    tmp_path: Path, kind: str, offset: int, layout: str, value: int, id: str
) -> None:
    path, tables = make(tmp_path, kind)
    check_file(path, TOP)
    patched(tables, offset, layout, value)
    assert tables.name in refused(path, id).message


@pytest.mark.parametrize("kind", ["vmfsSparse", "seSparse", "vmfs"])
def test_a_cut_file_is_refused(tmp_path: Path, kind: str) -> None:
    path, tables = make(tmp_path, kind)
    tables.write_bytes(tables.read_bytes()[:-1])
    assert tables.name in refused(path, "image-truncated").message


def test_a_last_grain_that_is_cut_within_the_disk(tmp_path: Path) -> None:
    path = write_vmdk(tmp_path, "disk", b"x" * MiB, kind="monolithicSparse")
    path.write_bytes(path.read_bytes()[:-512])
    refused(path, "image-truncated")


def test_a_part_that_holds_less_than_the_descriptor_says(tmp_path: Path) -> None:
    path = write_vmdk(tmp_path, "disk", BASE, kind="twoGbMaxExtentSparse", extents=2)
    (tmp_path / "disk-s001.vmdk").write_bytes(hosted_sparse(BASE[:MiB]))
    refused(path, "image-corrupt")


def test_two_directories_that_differ(tmp_path: Path) -> None:
    path = make_by_qemu(BASE, tmp_path / "disk.vmdk", "subformat=monolithicSparse")
    second, _ = struct.unpack_from("<QQ", path.read_bytes(), 48)
    (table,) = struct.unpack_from("<I", path.read_bytes(), second * 512)
    patched(path, table * 512, "<I", 0)
    refused(path, "image-corrupt")


def test_a_directory_may_be_longer_than_the_disk(tmp_path: Path) -> None:
    """What is behind the disk's end does not count, whatever it is."""
    path, tables = make(tmp_path, "vmfsSparse")
    patched(tables, 24, "<I", 100)
    check_file(path, TOP)
    assert by_qemu(path) == TOP


def test_a_damaged_table_hurts_only_who_needs_it(tmp_path: Path, store: LocalStore) -> None:
    """It may have been read ahead with others."""
    path = write_vmdk(tmp_path, "disk", BASE, kind="vmfsSparse")
    patched(tmp_path / "disk-delta.vmdk", (5 + 32) * 512, "<I", 1)
    disk = open_disk(store, str(path))
    assert read(disk, 0, 2 * MiB) == BASE[: 2 * MiB]
    for _ in range(2):
        with pytest.raises(SourceError, match="odd entry"):
            read(disk, 2 * MiB, 512)
    assert read(disk, 0, 2 * MiB) == BASE[: 2 * MiB]


# Compressed grains -------------------------------------------------------------------------------

GRAIN = 64 * KiB


@pytest.mark.parametrize(
    ("sector", "body", "length"),
    [
        (128, zlib.compress(b"x" * GRAIN), None),  # another grain's
        (0, b"no zlib at all", None),
        (0, zlib.compress(b"x" * GRAIN)[:-1], None),  # cut
        (0, zlib.compress(b"x" * GRAIN)[:-4] + b"abcd", None),  # its checksum
        (0, zlib.compress(b"x" * (GRAIN - 512)), None),  # too little
        (0, zlib.compress(b"x" * (GRAIN + 1)), None),  # too much
        (0, zlib.compress(bytes(100 * MiB)), None),  # a bomb
        (0, b"", None),
        (0, zlib.compress(b"x" * GRAIN), 0xFFFFFFFF),
        (0, zlib.compress(b"x" * GRAIN), 60 * KiB),  # ends behind the file
    ],
)
def test_a_damaged_grain(
    tmp_path: Path, store: LocalStore, sector: int, body: bytes, length: int | None
) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(b"x" * GRAIN, sector, body, length))
    disk = open_disk(store, str(path))
    for _ in range(2):
        with pytest.raises(SourceError, match=r"disk\.vmdk") as caught:
            read(disk)
        assert caught.value.id in ("image-corrupt", "image-truncated")


def stream(
    content: bytes, sector: int = 0, body: bytes | None = None, length: int | None = None
) -> bytes:
    """A streamOptimized disk of one grain, which is the last thing in the file."""
    text = vmdk.descriptor(
        "streamOptimized", f'RW {len(content) // 512} SPARSE "disk.vmdk"\n', 1, None, vmdk.NO_PARENT
    )
    out = bytearray(hosted_sparse(content, None, text))
    grain = out.rindex(content.ljust(GRAIN, b"\0"))
    struct.pack_into("<I", out, 8, 1 | 1 << 16 | 1 << 17)
    struct.pack_into("<H", out, 77, 1)
    body = zlib.compress(content) if body is None else body
    marker = struct.pack("<QI", sector, len(body) if length is None else length)
    return bytes(out[:grain]) + marker + body


@pytest.mark.parametrize("size", [GRAIN, 512, GRAIN - 512])
def test_a_whole_grain(tmp_path: Path, size: int) -> None:
    """The last one of a disk may be as long as the disk, or as the others."""
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(b"y" * size))
    check_file(path, b"y" * size)
    assert by_qemu(path) == b"y" * size
    path.write_bytes(stream(b"y" * size, body=zlib.compress((b"y" * size).ljust(GRAIN, b"\0"))))
    check_file(path, b"y" * size)


@pytest.mark.parametrize(("flags", "algorithm"), [(1 | 1 << 16, 1), (3 << 16, 2), (3 << 16, 0)])
def test_unknown_compression(tmp_path: Path, flags: int, algorithm: int) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(b"y" * GRAIN))
    patched(path, 8, "<I", flags)
    patched(path, 77, "<H", algorithm)
    assert refused(path, "image-corrupt" if algorithm == 0 else "image-unsupported")


def test_two_grains_at_one_place(tmp_path: Path, store: LocalStore) -> None:
    """The second of them is another one's."""
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(b"y" * 2 * GRAIN, body=zlib.compress(b"y" * GRAIN)))
    (table,) = struct.unpack_from("<I", path.read_bytes(), 128 * 512)
    (first,) = struct.unpack_from("<I", path.read_bytes(), table * 512)
    patched(path, table * 512 + 4, "<I", first)
    with pytest.raises(SourceError, match="the one of sector 0 instead"):
        read(open_disk(store, str(path)))


def test_compressed_grains_that_take_too_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream(b"y" * GRAIN))
    patched(path, 20, "<Q", 16 * MiB // 512)
    assert "compressed grains of 32768 sectors" in refused(path, "image-unsupported").message


def test_parts_that_together_have_too_many_tables(tmp_path: Path, store: LocalStore) -> None:
    path = write_vmdk(tmp_path, "disk", BASE, kind="twoGbMaxExtentSparse", extents=4)
    parts = open_disk(store, str(path))._layers[0].parts
    size = sum(8 * len(part.layout.directory) for part in parts if isinstance(part, Tables))
    open_chain(Names(store, ()), str(path), Cache(Reads(1), directories=size))
    with pytest.raises(SourceError, match=r"s004\.vmdk.*too many grain tables") as caught:
        open_chain(Names(store, ()), str(path), Cache(Reads(1), directories=size - 1))
    assert caught.value.id == "image-corrupt"
