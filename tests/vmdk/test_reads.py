"""How much is asked of a store, and how much at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.vmdk.disks import SIZE, check, make_by_qemu, read, write_chain
from tests.vmdk.stores import CountingStore
from v2v.errors import SourceError
from v2v.types import KiB, MiB
from v2v.vmdk import open_disk
from v2v.vmdk.reads import Reads
from v2v.vmdk.tables import Cache

NOISE = random.Random(0).randbytes(16 * MiB)
WAIT = 120  # seconds: what hangs fails


@pytest.fixture
def store() -> Iterator[CountingStore]:
    with CountingStore(parallel=4) as store:
        yield store


def dense(folder: Path, kind: str, scattered: int | None = None) -> Path:
    return write_vmdk(folder, "disk", NOISE, kind=kind, scattered=scattered)


@pytest.mark.parametrize("kind", ["vmfs", "vmfsSparse", "seSparse", "monolithicSparse"])
def test_data_in_one_piece_is_read_in_one_piece(
    tmp_path: Path, store: CountingStore, kind: str
) -> None:
    disk = open_disk(store, str(dense(tmp_path, kind)))
    assert store.reads <= 6
    list(disk.extents(0, disk.size))
    store.forget()
    assert read(disk) == NOISE
    assert store.reads == 1
    assert store.bytes_read == len(NOISE)


@pytest.mark.parametrize("kind", ["vmfsSparse", "seSparse"])
def test_tables_are_read_once_and_together(tmp_path: Path, store: CountingStore, kind: str) -> None:
    disk = open_disk(store, str(dense(tmp_path, kind)))
    store.forget()
    for offset in range(0, disk.size, 256 * KiB):
        assert read(disk, offset, 4 * KiB) == NOISE[offset : offset + 4 * KiB]
    assert store.reads == disk.size // (256 * KiB) + 1


def test_near_grains_are_read_together(tmp_path: Path, store: CountingStore) -> None:
    """Of 8192 blocks of 512 bytes in any order, which would be as many round trips."""
    path = write_vmdk(tmp_path, "disk", NOISE[: 4 * MiB], kind="vmfsSparse", scattered=1)
    disk = open_disk(store, str(path))
    list(disk.extents(0, disk.size))
    store.forget()
    assert read(disk, 0, 4 * MiB) == NOISE[: 4 * MiB]
    assert store.reads <= 5
    store.forget()
    read(disk, MiB, 256 * KiB)  # 512 blocks: on average one per 8 KiB of the file
    assert store.reads <= 20
    assert store.bytes_read <= 4 * MiB


def test_from_this_host_less_is_read_in_vain(tmp_path: Path) -> None:
    path = write_vmdk(tmp_path, "disk", NOISE[: 4 * MiB], kind="seSparse", scattered=1)
    with CountingStore(parallel=1) as store:
        disk = open_disk(store, str(path))
        list(disk.extents(0, disk.size))
        store.forget()
        read(disk, MiB, 256 * KiB)
        assert store.bytes_read <= 3 * 256 * KiB


def test_zeroes_and_what_is_nowhere_are_not_read(tmp_path: Path, store: CountingStore) -> None:
    path = write_vmdk(tmp_path, "disk", bytes(8 * MiB) + NOISE[:MiB], kind="seSparse")
    disk = open_disk(store, str(path))
    list(disk.extents(0, disk.size))
    store.forget()
    assert read(disk, 0, 8 * MiB) == bytes(8 * MiB)
    assert store.reads == 0


def test_a_packed_grain_is_read_and_unpacked_once(tmp_path: Path, store: CountingStore) -> None:
    path = make_by_qemu(NOISE[:MiB], tmp_path / "disk.vmdk", "subformat=streamOptimized")
    disk = open_disk(store, str(path))
    list(disk.extents(0, disk.size))
    store.forget()
    for offset in range(0, 64 * KiB, 4 * KiB):
        assert read(disk, offset, 4 * KiB) == NOISE[offset : offset + 4 * KiB]
    assert store.reads == 1


def test_holes_of_a_base_are_asked_for_once_per_question(
    tmp_path: Path, store: CountingStore
) -> None:
    """However many pieces of a delta lie on it."""
    write_chain(tmp_path, ("vmfs", "vmfsSparse"))
    disk = open_disk(store, str(tmp_path / "disk1.vmdk"))
    list(disk.extents(0, disk.size))
    assert store.questions == 1


class Meeting(CountingStore):
    """Reads of data wait until `together` of them are under way."""

    def __init__(self, together: int) -> None:
        super().__init__(parallel=together)
        self.barrier = threading.Barrier(together)
        self.meets = False

    def on_read(self, path: str, offset: int, length: int) -> None:
        super().on_read(path, offset, length)
        if self.meets:
            self.barrier.wait(WAIT)


def test_pieces_that_are_apart_are_read_at_once(tmp_path: Path) -> None:
    parts = [NOISE[at : at + 64 * KiB] for at in range(0, 256 * KiB, 64 * KiB)]
    gap = NOISE[MiB : MiB + 64 * KiB]
    content = b"".join(parts) + gap * 4
    path = write_vmdk(tmp_path, "disk", content, kind="twoGbMaxExtentFlat", extents=4)
    store = Meeting(4)
    with store:
        disk = open_disk(store, str(path))
        store.meets = True
        assert read(disk) == content


def test_tables_that_are_apart_are_read_at_once(tmp_path: Path) -> None:
    """As in a delta of ESX, where each table is where it was first needed."""
    path = dense(tmp_path, "vmfsSparse")
    data = tmp_path / "disk-delta.vmdk"
    raw = bytearray(data.read_bytes())
    for number in range(8):
        table = raw[(5 + 32 * number) * 512 : (37 + 32 * number) * 512]
        raw += bytes(-len(raw) % 512 + 64 * KiB)
        raw[4 * 512 + 4 * number : 4 * 512 + 4 * number + 4] = (len(raw) // 512).to_bytes(
            4, "little"
        )
        raw += table
    data.write_bytes(raw)
    store = Meeting(8)
    with store:
        disk = open_disk(store, str(path))
        store.meets = True
        list(disk.extents(0, disk.size))
        store.meets = False
        check(disk, NOISE)


def test_many_threads_at_once(tmp_path: Path, store: CountingStore) -> None:
    """Each range is right, and no table is read twice however many want it."""
    wanted = write_chain(tmp_path, ("vmfs", "vmfsSparse", "seSparse", "monolithicSparse"))[3]
    disk = open_disk(store, str(tmp_path / "disk3.vmdk"))
    opened = store.reads
    offsets = [random.Random(n).randrange(SIZE - 300_000) for n in range(300)]
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(WAIT)
        for offset in offsets[number::8]:
            assert read(disk, offset, 300_000) == wanted[offset : offset + 300_000]
            list(disk.extents(offset, 300_000))

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, n) for n in range(8)]:
            done.result(WAIT)
    tables = {"disk1-delta.vmdk": range(5 * 512, 357 * 512)}  # eleven of 16 KiB
    tables["disk2-sesparse.vmdk"] = range(9 * 512, 137 * 512)  # two of 32 KiB
    seen = [
        (name, offset)
        for name, offset in ((Path(path).name, at) for path, at, _ in store.asked[opened:])
        if offset in tables.get(name, ())
    ]
    assert seen
    assert len(seen) == len(set(seen))


def test_memory_for_tables_is_bounded(tmp_path: Path, store: CountingStore) -> None:
    """What was not used last is forgotten, and read again."""
    path = write_vmdk(tmp_path, "disk", NOISE, kind="vmfsSparse", scattered=1)
    disk = open_disk(store, str(path))
    cache = Cache(Reads(1), limit=300 * KiB)  # three tables in the worst order
    for part in disk._layers[0].parts:
        part._cache = cache  # type: ignore[attr-defined]
    check(disk, NOISE)
    assert cache._cost <= 300 * KiB
    assert len(cache._kept) == 3
    check(disk, NOISE)


class Failing(CountingStore):
    broken = False

    def on_read(self, path: str, offset: int, length: int) -> None:
        super().on_read(path, offset, length)
        if self.broken:
            raise SourceError("the link is down", id="source-read")


@pytest.mark.parametrize("parallel", [1, 4])
def test_after_an_error_it_can_be_read_again(tmp_path: Path, parallel: int) -> None:
    wanted = write_chain(tmp_path, ("vmfs", "vmfsSparse"))[1]
    store = Failing(parallel)
    with store:
        disk = open_disk(store, str(tmp_path / "disk1.vmdk"))
        store.broken = True
        for work in (lambda: read(disk), lambda: list(disk.extents(0, disk.size))):
            with pytest.raises(SourceError, match="link is down"):
                work()
        store.broken = False
        list(disk.extents(0, disk.size))
        store.broken = True
        with pytest.raises(SourceError, match="link is down"):
            read(disk)
        store.broken = False
        check(disk, wanted)
