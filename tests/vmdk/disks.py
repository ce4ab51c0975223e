"""What our reader finds in a disk, and what QEMU's does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fixtures.vmdk import write_vmdk
from tests.fakes.disks import disk_content
from v2v.types import KiB, MiB
from v2v.vmdk import Disk, LocalStore, Store, open_disk

SIZE = 20 * MiB + 37 * 512  # several tables of each kind, and a last block that is cut


def content(seed: int, size: int = SIZE) -> bytes:
    return disk_content(seed, size)


def changed(below: bytes, seed: int) -> bytes:
    """Some of it other data, some zeroes where there was data, some data where there were none."""
    new = bytearray(below)
    noise = content(seed + 1000, len(below))[MiB : MiB + 200 * KiB]
    for number, at in enumerate(range(3 * KiB, len(below) - 200 * KiB, len(below) // 9)):
        at += 1031 * seed + 17 * number
        length = 300 * 7 ** ((seed + number) % 4)
        new[at : at + length] = noise[:length]
        data = (at // MiB * MiB) + 20 * KiB  # zeroes where there was some
        new[data : data + 2 * length] = bytes(2 * length)
    new[-700:] = noise[:700]
    return bytes(new[: len(below)])


def write_chain(
    folder: Path,
    kinds: tuple[str, ...],
    *,
    size: int = SIZE,
    scattered: int | None = 1,
    split: bool = True,
) -> list[bytes]:
    """disk0.vmdk, disk1.vmdk ... of these kinds, each the parent of the next; their contents."""
    found: list[bytes] = []
    for number, kind in enumerate(kinds):
        below = found[-1] if found else None
        found.append(changed(below, number) if below else content(7, size))
        write_vmdk(
            folder,
            f"disk{number}",
            found[-1],
            kind=kind,
            cid=number + 1,
            below=below,
            parent=f"disk{number - 1}.vmdk" if number else None,
            parent_cid=number if number else 0xFFFFFFFF,
            extents=number + 1 if split else 1,
            scattered=scattered,
        )
    return found


def read(disk: Disk, offset: int = 0, length: int | None = None) -> bytes:
    buffer = bytearray(b"\xa5" * (disk.size - offset if length is None else length))
    disk.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def check(disk: Disk, wanted: bytes) -> None:
    """All that it tells is so."""
    assert disk.size == len(wanted)
    assert read(disk) == wanted
    position = 0
    for extent in disk.extents(0, disk.size):
        assert extent.offset == position
        assert extent.length
        position = extent.end
        if extent.zero:
            assert not wanted[extent.offset : extent.end].strip(b"\0")
    assert position == disk.size


def check_file(path: Path, wanted: bytes, store: Store | None = None) -> None:
    if store is not None:
        check(open_disk(store, str(path)), wanted)
        return
    with LocalStore() as local:
        check(open_disk(local, str(path)), wanted)


def zero_bytes(disk: Disk) -> int:
    return sum(extent.length for extent in disk.extents(0, disk.size) if extent.zero)


def by_qemu(path: Path, folder: Path) -> bytes:
    """The content as QEMU's own driver reads it, given nothing of ours."""
    out = folder / "by-qemu.raw"
    argv = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(path), str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def make_by_qemu(content: bytes, path: Path, options: str) -> Path:
    """A VMDK that qemu-img makes."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(content)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", options, str(raw), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    raw.unlink()
    return path
