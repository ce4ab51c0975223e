"""initramfs archives: every compression, several in a row, damage and bombs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.linux.cpio import CpioError, Entry, Limits, clean, read_initramfs, write_archive
from tests.conversion.linux.initramfs_maker import lz4_legacy
from v2v.types import KiB, MiB

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "lz4": lz4_legacy,
}
FIRST = [Entry("kernel/x86/microcode/GenuineIntel.bin", 0o100644, b"m" * 1001)]
SECOND = [
    Entry("lib", 0o120777, b"usr/lib"),
    Entry("usr/lib/modules", 0o40755),
    Entry("conf/modules", 0o100644, b"linear\n"),
    Entry("bin/sh", 0o100755, bytes(range(256)) * 999),
]
every_compression = pytest.mark.parametrize("pack", COMPRESSIONS.values(), ids=COMPRESSIONS.keys())


def read(data: bytes, **limits: int):
    return read_initramfs(io.BytesIO(data), lambda path: path == "conf/modules", Limits(**limits))


@every_compression
def test_reads_every_compression(pack) -> None:
    found = read(pack(write_archive(SECOND)))
    assert list(found.modes) == ["lib", "usr/lib/modules", "conf/modules", "bin/sh"]
    assert found.contents == {"lib": b"usr/lib", "conf/modules": b"linear\n"}
    assert found.is_link("lib") and found.is_folder("usr/lib/modules")


@every_compression
def test_reads_microcode_then_the_main_archive_then_one_appended(pack) -> None:
    early = write_archive(FIRST)
    main = pack(write_archive(SECOND))
    late = write_archive([Entry("conf/modules", 0o100644, b"new\n")])
    data = early + bytes(512 - len(early) % 512) + main
    data += bytes(-len(data) % 4 + 8) + late
    found = read(data)
    assert found.archives == 3
    assert found.contents["conf/modules"] == b"new\n"
    assert "kernel/x86/microcode/GenuineIntel.bin" in found.modes


@every_compression
def test_cut_short_is_an_error(pack) -> None:
    data = pack(write_archive(SECOND))
    for length in (1, 3, len(data) // 2, len(data) - 20):
        with pytest.raises(CpioError):
            read(data[:length])


@every_compression
def test_a_bomb_is_stopped_early(pack) -> None:
    bomb = pack(write_archive([Entry("zeros", 0o100644, bytes(40 * MiB))]))
    with pytest.raises(CpioError, match="unpacks to more than 8 MiB"):
        read(bomb, unpacked=8 * MiB)


def test_what_it_keeps_is_limited() -> None:
    data = write_archive([Entry("conf/modules", 0o100644, bytes(64 * KiB))])
    with pytest.raises(CpioError, match="too large"):
        read(data, kept=1 * KiB)


def test_too_many_entries_are_an_error() -> None:
    with pytest.raises(CpioError, match="too many"):
        read(write_archive([Entry(f"f{i}", 0o100644) for i in range(20)]), entries=10)


@pytest.mark.parametrize("data", [b"", bytes(4096), b"not an archive" * 20, b"\x89LZO" + bytes(99)])
def test_what_is_no_initramfs_is_an_error(data: bytes) -> None:
    with pytest.raises(CpioError):
        read(data)


def test_junk_behind_the_last_archive_is_an_error() -> None:
    with pytest.raises(CpioError):
        read(gzip.compress(write_archive(SECOND)) + b"\0\0junk" * 100)


@pytest.mark.parametrize("value", [b"FFFFFFFF", b"-0000001", b"zzzzzzzz", b" 0000_01"])
@pytest.mark.parametrize("field", [54, 94], ids=["size", "namesize"])
def test_hostile_sizes_are_an_error(field: int, value: bytes) -> None:
    data = bytearray(write_archive(SECOND))
    data[field : field + 8] = value
    with pytest.raises(CpioError):
        read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_never_does_more_than_raise(data) -> None:
    pack = data.draw(st.sampled_from(list(COMPRESSIONS.values())))
    image = bytearray(pack(write_archive(SECOND)))
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CpioError):
        read(bytes(image), unpacked=8 * MiB)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_never_do_more_than_raise(data: bytes) -> None:
    for magic in (b"", b"070701", b"\x1f\x8b", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"\x02!L\x18"):
        with contextlib.suppress(CpioError):
            read(magic + data, unpacked=8 * MiB)


names = st.from_regex(r"[a-z0-9_.]{1,8}(/[a-z0-9_]{1,8}){0,3}", fullmatch=True)


@given(st.dictionaries(names, st.binary(max_size=100), min_size=1, max_size=10))
def test_what_is_written_is_read(files: dict[str, bytes]) -> None:
    entries = [Entry(path, 0o100644, data) for path, data in files.items()]
    found = read_initramfs(io.BytesIO(write_archive(entries)), lambda path: True)
    assert found.contents == {clean(path): data for path, data in files.items()}


def test_cpio_itself_reads_what_we_write(tmp_path: Path, need_tool) -> None:
    data = write_archive([Entry("d", 0o40755), Entry("d/f", 0o100640, b"12345"), *SECOND[:1]])
    argv = [need_tool("cpio"), "-i", "-d", "--quiet", "--no-absolute-filenames"]
    subprocess.run(argv, input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "d/f").read_bytes() == b"12345"
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "lib").readlink() == Path("usr/lib")
