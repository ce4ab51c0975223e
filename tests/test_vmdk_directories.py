"""Sparse VMDKs with two grain directories: QEMU goes by the first, and both must say the same."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.fakes.disks import disk_content
from v2v.errors import SourceError
from v2v.image import read_image
from v2v.types import KiB, MiB

SECTOR = 512
CONTENT = disk_content(3, 70 * MiB)  # three tables
KINDS = ("monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized")


@pytest.fixture
def made(tmp_path: Path, need_tool) -> Path:
    """By qemu-img, which writes both directories and sets the flag that says so."""
    return made_by_qemu(tmp_path, "monolithicSparse")


def made_by_qemu(folder: Path, kind: str) -> Path:
    raw, path = folder / "web.raw", folder / "web.vmdk"
    raw.write_bytes(CONTENT)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}"]
    subprocess.run([*argv, str(raw), str(path)], check=True, capture_output=True)
    raw.unlink()
    return path


def directories(path: Path) -> tuple[list[int], list[int]]:
    """The byte of each table, of the first directory (QEMU's) and of the second."""
    data = path.read_bytes()
    second, first = struct.unpack_from("<QQ", data, 48)
    assert struct.unpack_from("<I", data, 8)[0] & 2
    assert 0 < second != first
    return tuple(  # type: ignore[return-value]
        [place * SECTOR for place in struct.unpack_from("<3I", data, sector * SECTOR)]
        for sector in (first, second)
    )


def patched(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def entry_of(path: Path, table: int) -> int:
    """The byte, in the table, of its first entry that has data."""
    entries = struct.unpack_from("<512I", path.read_bytes(), table)
    return next(4 * n for n, entry in enumerate(entries) if entry > 1)


def refused(path: Path) -> None:
    with pytest.raises(SourceError, match="two VMDK grain directories") as caught:
        read_image(path)
    assert caught.value.id == "image-corrupt"
    assert "vmware-vdiskmanager" in str(caught.value.hint)


@pytest.mark.parametrize("kind", KINDS)
def test_two_directories_that_agree_are_read(tmp_path: Path, need_tool, kind: str) -> None:
    need_tool("qemu-img")
    assert read_image(made_by_qemu(tmp_path, kind)).size == len(CONTENT)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_first_directory_that_lost_a_table_is_refused(made: Path, number: int) -> None:
    """QEMU would read 32 MiB of zeroes."""
    (first,) = struct.unpack_from("<Q", made.read_bytes(), 56)
    patched(made, first * SECTOR + 4 * number, bytes(4))
    refused(made)


@pytest.mark.parametrize("which", [0, 1])
def test_a_table_that_lost_one_grain_is_refused(made: Path, which: int) -> None:
    table = directories(made)[which][1]
    patched(made, table + entry_of(made, table), bytes(4))
    refused(made)


def test_zeroes_are_not_nothing(made: Path) -> None:
    """A grain of zeroes hides the parent's, no grain shows it."""
    first, second = (tables[0] for tables in directories(made))
    place = entry_of(made, first)
    patched(made, first + place, struct.pack("<I", 1))
    refused(made)
    patched(made, second + place, struct.pack("<I", 1))
    assert read_image(made)


def test_a_table_without_data_is_as_none(made: Path) -> None:
    directory, _ = struct.unpack_from("<QQ", made.read_bytes(), 48)
    for table in (tables[1] for tables in directories(made)):
        patched(made, table, bytes(2 * KiB))
    patched(made, directory * SECTOR + 4, bytes(4))
    assert read_image(made)


def test_a_second_directory_that_is_not_said_to_be_there_does_not_count(made: Path) -> None:
    for table in directories(made)[1]:
        patched(made, table, bytes(2 * KiB))
    refused(made)
    (flags,) = struct.unpack_from("<I", made.read_bytes(), 8)
    patched(made, 8, struct.pack("<I", flags & ~2))
    assert read_image(made)


@pytest.mark.parametrize("place", [0, (1 << 64) - 1, 1 << 40])
def test_a_second_directory_that_is_nowhere(made: Path, place: int) -> None:
    patched(made, 48, struct.pack("<Q", place))
    if place == 0:
        assert read_image(made)
        return
    with pytest.raises(SourceError) as caught:
        read_image(made)
    assert caught.value.id == "image-truncated"


def test_of_a_very_large_disk_what_only_one_directory_has_is_looked_at(tmp_path: Path) -> None:
    """Of those that both have, only some are compared."""
    path = write_vmdk(tmp_path, "web", CONTENT[:MiB], kind="monolithicSparse")
    count = 1 << 16  # tables, of 32 MiB each
    data = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<Q", data, 56)
    (table,) = struct.unpack_from("<I", data, directory * SECTOR)
    data += bytes(-len(data) % SECTOR)
    first = len(data) // SECTOR
    data += struct.pack(f"<{count}I", *([table] * count))
    second = len(data) // SECTOR
    places = [table] * count
    places[count // 2 + 1] = 0
    data += struct.pack(f"<{count}I", *places)
    struct.pack_into("<I", data, 8, 3)
    struct.pack_into("<Q", data, 12, count * 512 * 128)
    struct.pack_into("<QQ", data, 48, second, first)
    path.write_bytes(data)
    refused(path)
