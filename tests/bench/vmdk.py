"""VMDKs with snapshots: our reader against QEMU's driver, the same files in the same run.

    .venv/bin/python -m tests.bench.vmdk

A flat base and one delta of each kind, all in the page cache: dense (all was written anew, in the
disk's order), half (64 KiB of each 128), and mixed (half, the blocks of the delta in any order).
Each side reads the whole disk and throws it away: ours in requests of 1 MiB from one thread,
qemu-img convert into its null device; the best of three. Then ours with 10 ms more for each read of
a file, as over a link, of which 16 may be under way, for 8 threads as in an NBD server: how
many reads there were, and their bytes.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fixtures.vmdk import write_vmdk
from tests.vmdk.stores import SlowStore
from v2v.extents import Extent, split
from v2v.types import KiB, MiB
from v2v.vmdk import Disk, LocalStore, Store, open_disk

REQUEST = MiB
KINDS = ("vmfs", "vmfsSparse", "seSparse", "monolithicSparse", "streamOptimized")


def build(folder: Path, size: int, kind: str, what: str) -> Path:
    """The descriptor of a disk of `size` bytes, on a flat base but for those without parents."""
    noise = random.Random(1)
    base, new = noise.randbytes(size), bytearray(noise.randbytes(size))
    if what != "dense":
        for at in range(0, size, 128 * KiB):
            new[at : at + 64 * KiB] = base[at : at + 64 * KiB]
    if kind == "streamOptimized":
        return packed(folder, bytes(new))
    if kind == "vmfs":
        return write_vmdk(folder, "web", bytes(new))
    write_vmdk(folder, "web", base)
    return write_vmdk(
        folder,
        "web-000001",
        bytes(new),
        kind=kind,
        below=base,
        parent="web.vmdk",
        cid=2,
        parent_cid=1,
        scattered=1 if what == "mixed" else None,
    )


def packed(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    raw, path = folder / "raw", folder / "web.vmdk"
    raw.write_bytes(content)
    argv = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run([*argv, str(raw), str(path)], check=True)
    raw.unlink()
    return path


def ours(store: Store, path: Path) -> None:
    disk = open_disk(store, str(path))
    buffer = memoryview(bytearray(REQUEST))
    for extent in disk.extents(0, disk.size):
        for at in range(extent.offset, extent.end, REQUEST):
            if not extent.zero:
                disk.read_into(at, buffer[: min(REQUEST, extent.end - at)])


def by_threads(store: Store, path: Path) -> None:
    disk = open_disk(store, str(path))
    parts = [part for found in disk.extents(0, disk.size) for part in split(found, REQUEST)]
    with ThreadPoolExecutor(8) as threads:
        wanted = (part for part in parts if not part.zero)
        for _ in threads.map(lambda part: read(disk, part), wanted):
            pass


def read(disk: Disk, part: Extent) -> None:
    disk.read_into(part.offset, memoryview(bytearray(part.length)))


def qemu(path: Path, size: int) -> None:
    target = f"driver=null-co,size={size}"
    argv = ["qemu-img", "convert", "-f", "vmdk", "-n", "--target-image-opts", str(path), target]
    subprocess.run(argv, check=True)


def best(work: Callable[[], None], times: int) -> float:
    return min(timed(work) for _ in range(times))


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows() -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        yield kind, "dense"
        if kind not in ("vmfs", "streamOptimized"):
            yield from ((kind, what) for what in ("half", "mixed"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=64)
    options.add_argument("--times", type=int, default=3)
    given = options.parse_args()
    print(f"{'MiB/s':24}    ours    qemu   ratio  ours, 10 ms   reads    MiB")
    for kind, what in rows():
        with tempfile.TemporaryDirectory() as folder:
            print(row(Path(folder) / "vm", given.mib * MiB, kind, what, given.times), flush=True)


def row(folder: Path, size: int, kind: str, what: str, times: int) -> str:
    path, mib = build(folder, size, kind, what), size // MiB
    with LocalStore() as store, SlowStore(0.01) as slow:
        mine = best(partial(ours, store, path), times)
        theirs = best(partial(qemu, path, size), times)
        far = best(partial(by_threads, slow, path), 1)
        return (
            f"{kind + ', ' + what:24}{mib / mine:8.0f}{mib / theirs:8.0f}{theirs / mine:8.1f}"
            f"{mib / far:13.0f}{slow.reads:8}{slow.bytes_read / MiB:7.0f}"
        )


if __name__ == "__main__":
    main()
