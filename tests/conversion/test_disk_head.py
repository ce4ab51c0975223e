"""Reading partition tables and boot sectors, of real disks and of hostile bytes."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion import boot
from conversion.disk_head import BIOS_BOOT, ESP, HEAD_BYTES, DiskHead, read_head
from v2v.types import DiskFormat, Firmware, Source, SourceDisk

LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def partitioned(path: Path, script: str) -> bytes:
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    subprocess.run(["/sbin/sfdisk", "-q", path], input=script, text=True, check=True)
    return path.read_bytes()[:HEAD_BYTES]


def gpt(types: list[UUID], *, sector: int = 512, size: int = 128, first: int = 2) -> bytes:
    """A GPT with partitions of these types, for a disk of sectors of `sector` bytes."""
    header = bytearray(sector)
    header[:8] = b"EFI PART"
    struct.pack_into("<QII", header, 72, first, len(types), size)
    entries = b"".join(kind.bytes_le.ljust(min(size, 4096), b"\0") for kind in types)
    return bytes(sector) + bytes(header) + bytes((first - 2) * sector) + entries


def test_a_gpt_made_by_sfdisk(tmp_path, need_tool):
    need_tool("sfdisk")
    head = partitioned(tmp_path / "disk", f"label: gpt\nsize=8M, type={ESP}\nsize=8M\n")
    assert read_head(head).partitions == {1: ESP, 2: LINUX}
    assert read_head(head).esp == 1


def test_an_mbr_has_no_gpt_partitions(tmp_path, need_tool):
    need_tool("sfdisk")
    head = read_head(partitioned(tmp_path / "disk", "label: dos\nsize=8M, type=ef\n"))
    assert head == DiskHead({})


def test_disks_with_sectors_of_4096_bytes():
    assert read_head(gpt([LINUX, ESP], sector=4096)).esp == 2


def test_grub_in_the_boot_sector():
    sector = (b"\xebc\x90".ljust(384, b"\0") + b"GRUB \0Geom").ljust(510, b"\0") + b"\x55\xaa"
    assert read_head(sector) == DiskHead({}, boot_code=True, grub=True)
    assert read_head(sector[:510] + b"\0\0") == DiskHead({})


@pytest.mark.parametrize(
    "head",
    [
        b"",
        bytes(HEAD_BYTES),
        gpt([ESP], size=0),
        gpt([ESP], size=2**32 - 1),
        gpt([ESP], first=100)[: 512 * 3],
        gpt([])[: 512 + 80],
    ],
    ids=["empty", "zeroes", "entries of no size", "huge entries", "beyond the end", "cut off"],
)
def test_a_damaged_table_has_no_esp(head):
    assert read_head(head).esp is None


@given(st.binary(max_size=4096))
def test_no_bytes_make_it_fail(tail):
    read_head(gpt([ESP])[:512] + tail)
    read_head(tail)
    read_head(gpt([])[: 512 + 72] + tail)


# Decisions ----------------------------------------------------------------------------------------

BLANK = DiskHead({})
GRUB = DiskHead({}, boot_code=True, grub=True)
OTHER = DiskHead({}, boot_code=True)
UEFI = DiskHead({1: ESP, 2: LINUX})
BOTH = DiskHead({1: ESP, 2: BIOS_BOOT}, boot_code=True, grub=True)


def source(firmware: Firmware | None = None) -> Source:
    disks = (SourceDisk("/disk", DiskFormat.RAW),)
    return Source("vm", "disk", disks, firmware=firmware)


@pytest.mark.parametrize(
    ("heads", "found"),
    [
        ([BLANK], Firmware.BIOS),
        ([GRUB], Firmware.BIOS),
        ([UEFI], Firmware.UEFI),
        ([BOTH], Firmware.BIOS),
        ([GRUB, UEFI], Firmware.UEFI),
        ([], Firmware.BIOS),
    ],
)
def test_firmware_from_the_disks(heads, found):
    assert boot.firmware(source(), heads) is found


def test_what_the_source_says_of_its_firmware_wins():
    assert boot.firmware(source(Firmware.BIOS), [UEFI]) is Firmware.BIOS
    assert boot.firmware(source(Firmware.UEFI), [GRUB]) is Firmware.UEFI


HYBRID = DiskHead({1: ESP}, boot_code=True)


@pytest.mark.parametrize(
    ("firmware", "heads", "words"),
    [
        (Firmware.BIOS, [UEFI], "by BIOS, but its disks have an EFI system partition"),
        (Firmware.BIOS, [BLANK, UEFI], "by BIOS, but"),
        (Firmware.UEFI, [GRUB], "by UEFI, but its disks have boot code for a BIOS"),
        (Firmware.UEFI, [BLANK, DiskHead({1: BIOS_BOOT})], "by UEFI, but"),
        (Firmware.BIOS, [GRUB], None),
        (Firmware.BIOS, [HYBRID], None),
        (Firmware.BIOS, [BOTH], None),
        (Firmware.BIOS, [UEFI, GRUB], None),
        (Firmware.BIOS, [BLANK], None),
        (Firmware.UEFI, [UEFI], None),
        (Firmware.UEFI, [BOTH], None),
        (Firmware.UEFI, [OTHER], None),
        (Firmware.UEFI, [BLANK], None),
        (None, [UEFI], None),
        (None, [GRUB], None),
        (Firmware.UEFI, [], None),
    ],
)
def test_a_firmware_that_the_disks_speak_against_is_doubted(firmware, heads, words):
    doubt = boot.firmware_doubt(source(firmware), heads)
    if words is None:
        assert doubt is None
    else:
        assert doubt is not None and doubt.severity == "warning" and words in doubt.text


@pytest.mark.parametrize(
    ("firmware", "heads", "mounts", "disk"),
    [
        (Firmware.BIOS, [GRUB, BLANK], {"/": "/dev/sdb1"}, 0),
        (Firmware.BIOS, [BLANK, GRUB], {"/": "/dev/sda1"}, 1),
        (Firmware.BIOS, [GRUB, GRUB], {"/": "/dev/sdb1"}, 1),
        (Firmware.BIOS, [GRUB, GRUB], {"/": "/dev/vg/root", "/boot": "/dev/sdb1"}, 1),
        (Firmware.BIOS, [OTHER, BLANK], {"/": "/dev/sdb1"}, 0),
        (Firmware.BIOS, [BLANK, BLANK], {"/": "btrfsvol:/dev/sdb2/@"}, 1),
        (Firmware.BIOS, [BLANK, BLANK], {"/": "/dev/vg/root"}, 0),
        (Firmware.UEFI, [GRUB, UEFI], {"/": "/dev/sda1"}, 1),
        (Firmware.UEFI, [UEFI, UEFI], {"/": "/dev/sdb2"}, 1),
        (Firmware.BIOS, [], {}, 0),
    ],
)
def test_the_disk_to_boot_from(firmware, heads, mounts, disk):
    assert boot.boot_disk(firmware, heads, mounts) == disk


@pytest.mark.parametrize(
    ("device", "disk"),
    [("/dev/sda", 0), ("/dev/sdb12", 1), ("/dev/sdaa1", 26), ("/dev/vg/lv", None), ("", None)],
)
def test_the_disk_of_a_device(device, disk):
    assert boot.disk_of(device) == disk
