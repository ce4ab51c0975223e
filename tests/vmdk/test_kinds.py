"""Every kind of VMDK and chains of them: what we read is what was written, and what QEMU reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import vmdk
from fixtures.vmdk import cowd, hosted_sparse, write_vmdk
from tests.vmdk.disks import (
    SIZE,
    by_qemu,
    changed,
    check,
    check_file,
    content,
    make_by_qemu,
    read,
    write_chain,
    zero_bytes,
)
from v2v.extents import Extent, clip
from v2v.types import KiB, MiB
from v2v.vmdk import Disk, LocalStore, open_disk

DELTAS = ("vmfsSparse", "seSparse", "monolithicSparse", "twoGbMaxExtentSparse")
BY_QEMU = (
    *("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"),
    "streamOptimized",
)
LONG = ("vmfs", "vmfsSparse", "seSparse", "vmfsSparse", "seSparse", "monolithicSparse")


@pytest.fixture(autouse=True)
def qemu(need_tool: Callable[[str], str]) -> None:
    need_tool("qemu-img")


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


@pytest.mark.parametrize("kind", sorted(vmdk.KINDS))
def test_a_disk_without_parent(tmp_path: Path, kind: str) -> None:
    (wanted,) = write_chain(tmp_path, (kind,))
    path = tmp_path / "disk0.vmdk"
    check_file(path, wanted)
    assert by_qemu(path, tmp_path) == wanted


@pytest.mark.parametrize("kind", BY_QEMU)
def test_a_disk_that_qemu_made(tmp_path: Path, kind: str) -> None:
    path = make_by_qemu(content(5), tmp_path / "disk.vmdk", f"subformat={kind}")
    check_file(path, by_qemu(path, tmp_path))
    assert by_qemu(path, tmp_path)[:SIZE] == content(5)


@pytest.mark.parametrize("scattered", [None, 3])
@pytest.mark.parametrize("kind", DELTAS)
def test_a_chain(tmp_path: Path, kind: str, scattered: int | None) -> None:
    """Its parts are split elsewhere than those of its parents; each disk of it can be read."""
    found = write_chain(tmp_path, ("twoGbMaxExtentFlat", kind, kind), scattered=scattered)
    for number, wanted in enumerate(found):
        check_file(tmp_path / f"disk{number}.vmdk", wanted)
    assert by_qemu(tmp_path / "disk2.vmdk", tmp_path) == found[2]


def test_a_long_chain_of_several_kinds(tmp_path: Path) -> None:
    found = write_chain(tmp_path, LONG, split=False)
    for number, wanted in enumerate(found):
        check_file(tmp_path / f"disk{number}.vmdk", wanted)
    assert by_qemu(tmp_path / "disk5.vmdk", tmp_path) == found[5]


def test_a_packed_base(tmp_path: Path, store: LocalStore) -> None:
    """A delta on a streamOptimized disk, as Workstation makes them on what it imported."""
    path = make_by_qemu(content(5), tmp_path / "base.vmdk", "subformat=streamOptimized")
    below = by_qemu(path, tmp_path)
    cid = next(
        int(line[4:], 16) for line in path.read_bytes().split(b"\n") if line.startswith(b"CID=")
    )
    new = changed(below, 2)
    top = write_vmdk(
        tmp_path,
        "top",
        new,
        kind="monolithicSparse",
        below=below,
        parent="base.vmdk",
        cid=5,
        parent_cid=cid,
    )
    check_file(top, new)
    assert by_qemu(top, tmp_path) == new


@pytest.mark.parametrize("grain", [1, 8, 64, 2048])
def test_sizes_of_cowd_grains(tmp_path: Path, grain: int) -> None:
    path = write_vmdk(tmp_path, "disk", content(1), kind="vmfsSparse")
    (tmp_path / "disk-delta.vmdk").write_bytes(cowd(content(1), grain=grain, scattered=1))
    check_file(path, content(1))
    assert by_qemu(path, tmp_path) == content(1)


@pytest.mark.parametrize("grain", [8, 16, 128, 4096])
def test_sizes_of_hosted_grains(tmp_path: Path, grain: int) -> None:
    path = write_vmdk(tmp_path, "disk", content(1), kind="twoGbMaxExtentSparse")
    data = hosted_sparse(content(1), grain=grain, scattered=1)
    (tmp_path / "disk-s001.vmdk").write_bytes(data)
    check_file(path, content(1))
    assert by_qemu(path, tmp_path) == content(1)


def test_a_last_grain_that_ends_with_the_disk(tmp_path: Path) -> None:
    """The file holds no more of it than the disk does."""
    path = write_vmdk(tmp_path, "disk", content(1), kind="monolithicSparse")
    data = path.read_bytes()
    path.write_bytes(data[: -(64 * KiB) + SIZE % (64 * KiB)])
    check_file(path, content(1))


def test_grains_of_zeroes_hide_the_parents(tmp_path: Path, store: LocalStore) -> None:
    base = make_by_qemu(content(5, 4 * MiB), tmp_path / "base.vmdk", "subformat=monolithicSparse")
    top = tmp_path / "top.vmdk"
    argv = ["qemu-img", "create", "-q", "-f", "vmdk", "-b", base.name, "-F", "vmdk"]
    argv += ["-o", "zeroed_grain=on", str(top)]
    subprocess.run(argv, check=True, cwd=tmp_path)
    subprocess.run(["qemu-io", "-c", "write -z 1M 128k", str(top)], check=True, capture_output=True)
    wanted = by_qemu(top, tmp_path)
    assert not wanted[MiB : MiB + 128 * KiB].strip(b"\0")
    disk = open_disk(store, str(top))
    check(disk, wanted)
    assert zero_bytes(disk) == 4 * MiB - 64 * KiB * sum(
        bool(wanted[at : at + 64 * KiB].strip(b"\0")) for at in range(0, 4 * MiB, 64 * KiB)
    )


def test_unmapped_grains_of_sesparse_are_zeroes(tmp_path: Path) -> None:
    write_chain(tmp_path, ("vmfs", "seSparse"), scattered=None)
    data = tmp_path / "disk1-sesparse.vmdk"
    raw = bytearray(data.read_bytes())
    table = 9 * 512
    entries = [raw[at + 7] >> 4 for at in range(table, table + 32768, 8)]
    zero = entries.index(2)
    raw[table + 8 * zero + 7] = 0x10
    data.write_bytes(raw)
    check_file(tmp_path / "disk1.vmdk", by_qemu(tmp_path / "disk1.vmdk", tmp_path))


def test_a_parent_that_is_shorter_is_zeroes_behind_its_end(tmp_path: Path) -> None:
    write_vmdk(tmp_path, "lowest", b"\x11" * 4 * MiB)
    write_vmdk(
        tmp_path,
        "middle",
        b"\x11" * MiB,
        kind="vmfsSparse",
        below=b"\x11" * MiB,
        parent="lowest.vmdk",
        parent_cid=1,
        cid=2,
    )
    wanted = b"\x11" * MiB + bytes(2 * MiB) + b"\x22" * MiB
    top = write_vmdk(
        tmp_path,
        "top",
        wanted,
        kind="seSparse",
        below=b"\x11" * MiB + bytes(3 * MiB),
        parent="middle.vmdk",
        parent_cid=2,
    )
    assert by_qemu(top, tmp_path) == wanted
    check_file(top, wanted)


def test_holes_of_a_flat_base_show_through(tmp_path: Path, store: LocalStore) -> None:
    write_chain(tmp_path, ("vmfs", "vmfsSparse"), scattered=None)
    flat = tmp_path / "disk0-flat.vmdk"
    flat.write_bytes(b"")
    os.truncate(flat, SIZE)
    disk = open_disk(store, str(tmp_path / "disk1.vmdk"))
    written = SIZE - zero_bytes(disk)
    size = (tmp_path / "disk1-delta.vmdk").stat().st_size
    assert 0 < written <= size
    check(disk, read(disk))


def test_a_thin_disk_of_two_terabytes_is_told_at_once(tmp_path: Path, store: LocalStore) -> None:
    """Nothing is made per grain, or per table that is not there."""
    size = 2 << 40
    path = write_vmdk(tmp_path, "disk", b"x" * MiB, kind="vmfsSparse")
    count = size // (2 * MiB)
    data = bytearray(cowd(b"x" * MiB))
    table = bytes(data[5 * 512 : 37 * 512])
    first = -(-len(data) // 512)
    directory = [0] * count
    directory[0] = directory[-1] = first + count * 4 // 512
    data += bytes(first * 512 - len(data))
    for n in directory:
        data += n.to_bytes(4, "little")
    data += table
    data[12:16] = (size // 512 & 0xFFFFFFFF).to_bytes(4, "little")
    # COWD counts sectors in 32 bits: the largest is one sector short of two terabytes.
    data[12:16] = (0xFFFFFFFF).to_bytes(4, "little")
    data[20:28] = first.to_bytes(4, "little") + count.to_bytes(4, "little")
    (tmp_path / "disk-delta.vmdk").write_bytes(data)
    path.write_text(path.read_text().replace("RW 2048 ", f"RW {0xFFFFFFFF} "))
    disk = open_disk(store, str(path))
    assert disk.size == size - 512
    assert list(disk.extents(0, disk.size)) == [
        Extent(0, MiB),
        Extent(MiB, size - 3 * MiB, zero=True),
        Extent(size - 2 * MiB, MiB),
        Extent(size - MiB, MiB - 512, zero=True),
    ]
    assert read(disk, size - 2 * MiB - 10, 20) == bytes(10) + b"x" * 10


# Ranges ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Disk, bytes]]:
    folder = tmp_path_factory.mktemp("chain")
    found = write_chain(folder, LONG[:4])
    with LocalStore() as store:
        yield open_disk(store, str(folder / "disk3.vmdk")), found[3]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.differing_executors])
@given(st.integers(0, SIZE), st.integers(0, 3 * MiB))
def test_any_range(long_chain: tuple[Disk, bytes], offset: int, length: int) -> None:
    disk, wanted = long_chain
    length = min(length, disk.size - offset)
    assert read(disk, offset, length) == wanted[offset : offset + length]
    found = list(disk.extents(offset, length))
    assert found == list(clip(disk.extents(0, disk.size), offset, offset + length))
    assert all(one.end == other.offset and one.zero != other.zero for one, other in pairwise(found))


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, SIZE + 1), (SIZE, 1), (SIZE + 1, 0)])
def test_what_is_not_in_the_disk_is_not_read(
    long_chain: tuple[Disk, bytes], offset: int, length: int
) -> None:
    with pytest.raises(ValueError, match="of a disk of"):
        read(long_chain[0], offset, length)
    with pytest.raises(ValueError, match="of a disk of"):
        long_chain[0].extents(offset, length)
