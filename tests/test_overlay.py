"""The overlay: the source is never written, and what was written outlives everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from v2v import nbd_client, nbdkit, overlay, qemu_img
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.nbd_layers import layers
from v2v.run import Run
from v2v.types import DiskFormat, GiB, KiB, MiB

SIZE = 6 * MiB


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(disk_content())
    return path


@contextmanager
def source(disk: Path, run: Run) -> Iterator[Endpoint]:
    with nbdkit.serve("file", [f"file={disk}"], run=run, name="source") as socket:
        yield nbd_client.describe(socket)


def write(endpoint: Endpoint, offset: int, content: bytes) -> None:
    handle = nbd_client.connect(endpoint)
    handle.pwrite(content, offset)
    handle.shutdown()


def test_reads_the_source_until_written(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        assert (top.size, top.read_only, top.multi_conn) == (SIZE, False, True)
        write(top, 4 * KiB, b"new")
        assert read_all(top)[4 * KiB : 4 * KiB + 3] == b"new"
        assert read_all(endpoint) == disk_content()
    assert disk.read_bytes() == disk_content()


def test_tells_what_was_written(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        write(top, MiB, b"x" * 64 * KiB)
        import nbd

        handle = nbd.NBD()
        handle.add_meta_context("qemu:allocation-depth")
        handle.connect_unix(str(top.socket))
        depths: list[int] = []
        handle.block_status(SIZE, 0, lambda _c, _o, entries, _e: depths.extend(entries) or 0)
        handle.shutdown()
    assert depths == [MiB, 2, 64 * KiB, 1, SIZE - MiB - 64 * KiB, 2]


def test_trimmed_and_zeroed_ranges_are_zero_and_take_no_space(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        handle = nbd_client.connect(top)
        handle.trim(MiB, MiB)
        handle.pwrite(bytes(MiB), 2 * MiB)
        handle.shutdown()
        assert read_all(top)[MiB : 3 * MiB] == bytes(2 * MiB)
        zero = [e for e in nbd_client.extents(top) if e.zero and e.offset <= MiB < e.end]
        assert zero and zero[0].end >= 3 * MiB
    assert overlay.overlay_path(0, run).stat().st_blocks * 512 < MiB


def test_is_opened_again_over_a_new_socket(disk: Path, run: Run) -> None:
    sockets = []
    for word in (b"one", b"two"):
        with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
            sockets.append(endpoint.socket)
            content = read_all(top)
            assert content[:3] == (disk_content()[:3] if word == b"one" else b"one")
            assert content[MiB:] == disk_content()[MiB:]
            write(top, 0, word)
            overlay.settle(top, 0, run)
    assert sockets[0] != sockets[1]


def test_disks_have_overlays_of_their_own_until_discarded(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint:
        for index in (0, 1):
            with overlay.open_overlay(endpoint, index, run):
                pass
    assert overlay.overlay_path(0, run).exists() and overlay.overlay_path(1, run).exists()
    overlay.discard_overlays(run)
    assert not list(run.folder.glob("overlay-*"))


def test_a_half_made_overlay_is_made_again(disk: Path, run: Run) -> None:
    overlay.overlay_path(0, run).with_suffix(".qcow2.new").write_bytes(b"half")
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        assert read_all(top) == disk_content()


def test_a_source_of_odd_size(disk: Path, run: Run) -> None:
    with disk.open("ab") as file:
        file.write(b"end")
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        assert read_all(top) == (disk_content() + b"end").ljust(SIZE + 512, b"\0")


CRASH = """
import os, sys
from pathlib import Path
from v2v import nbd_client, nbdkit, overlay
from v2v.run import Run
run = Run.open(Path(sys.argv[1]))
with nbdkit.serve("file", ["file=" + sys.argv[2]], run=run, name="source") as socket:
    with overlay.open_overlay(nbd_client.describe(socket), 0, run) as top:
        handle = nbd_client.connect(top)
        handle.pwrite(b"settled" * 4096, 1 << 20)
        overlay.settle(top, 0, run)
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_what_was_settled_survives_kill_9(disk: Path, tmp_path: Path) -> None:
    with Run.create(tmp_path / "jobs", "crash") as run:
        folder = run.folder
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(folder), str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        servers = children_of(process.pid)
        assert len(servers) == 2
        process.send_signal(signal.SIGKILL)
    wait_until_gone(servers)
    with (
        Run.open(folder) as run,
        source(disk, run) as endpoint,
        overlay.open_overlay(endpoint, 0, run) as top,
    ):
        assert read_all(top)[MiB : MiB + 7 * 4096] == b"settled" * 4096
    subprocess.run(["qemu-img", "check", "-q", overlay.overlay_path(0, run)], check=True)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def wait_until_gone(pids: list[int], seconds: float = 60) -> None:
    """Poll the processes' file descriptors, which become readable when they end."""
    import select

    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([fd], [], [], seconds)[0], f"process {pid} still runs"
        os.close(fd)


@pytest.mark.parametrize("format", [DiskFormat.RAW, DiskFormat.QCOW2])
def test_throw_away_leaves_the_image_alone(disk: Path, run: Run, format: DiskFormat) -> None:
    image = disk
    if format == DiskFormat.QCOW2:
        image = disk.with_suffix(".qcow2")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image], check=True)
    before = image.read_bytes()
    with overlay.throw_away(image, format, 0, run) as (path,):
        assert qemu_img.virtual_size(path, DiskFormat.QCOW2) == SIZE
        with overlay.serve_overlay(path, 0, run) as endpoint:
            assert read_all(endpoint) == disk_content()
            write(endpoint, 0, b"new")
            assert read_all(endpoint)[:3] == b"new"
    assert not path.exists()
    assert image.read_bytes() == before
    assert children() == set()


def test_what_is_the_overlays_own_is_told_in_whole_clusters(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        assert overlay.own_extents(top, 0, run) == []
        handle = nbd_client.connect(top)
        handle.pwrite(b"new", MiB + 70 * KiB)
        handle.trim(128 * KiB, 3 * MiB)
        handle.pwrite(b"x" * 512, SIZE - 512)
        handle.shutdown()
        assert overlay.own_extents(top, 0, run) == [
            Extent(MiB + 64 * KiB, 64 * KiB),
            Extent(3 * MiB, 128 * KiB, zero=True),
            Extent(SIZE - 64 * KiB, 64 * KiB),
        ]
        assert read_all(top)[MiB + 70 * KiB :][:3] == b"new"  # nothing was disturbed


def test_own_extents_of_a_disk_larger_than_one_answer(run: Run, tmp_path: Path) -> None:
    with (
        nbdkit.serve("memory", ["9G"], run=run, name="source") as socket,
        overlay.open_overlay(nbd_client.describe(socket), 0, run) as top,
    ):
        spots = (0, 2 * GiB - 64 * KiB, 2 * GiB, 9 * GiB - 64 * KiB)
        for spot in spots:
            write(top, spot, b"x" * 64 * KiB)
        assert overlay.own_extents(top, 0, run) == [
            Extent(0, 64 * KiB),
            Extent(2 * GiB - 64 * KiB, 128 * KiB),
            Extent(9 * GiB - 64 * KiB, 64 * KiB),
        ]


def test_own_extents_while_the_overlay_is_written(disk: Path, run: Run) -> None:
    """Another connection may write all the time; what was written before is told."""
    stop = threading.Event()

    def scribble(endpoint: Endpoint) -> None:
        handle = nbd_client.connect(endpoint)
        while not stop.is_set():
            handle.pwrite(os.urandom(4 * KiB), 4 * MiB)
            handle.trim(64 * KiB, 5 * MiB)
        handle.shutdown()

    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        write(top, MiB, b"x" * 64 * KiB)
        thread = threading.Thread(target=scribble, args=(top,))
        thread.start()
        try:
            for _ in range(5):
                assert Extent(MiB, 64 * KiB) in overlay.own_extents(top, 0, run)
        finally:
            stop.set()
            thread.join()


def test_the_depths_of_a_live_overlay_agree(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, overlay.open_overlay(endpoint, 0, run) as top:
        write(top, MiB, b"x" * 64 * KiB)
        found = list(layers(top))
        own = [(one.offset, one.length) for one in found if one.own]
        assert own == [(MiB, 64 * KiB)]
        assert found[0].offset == 0 and found[-1].end == SIZE
        holes = [(one.offset, one.length) for one in found if one.zero]
        assert holes == [(e.offset, e.length) for e in nbd_client.extents(top) if e.zero]


def test_a_server_without_depths_is_refused(disk: Path, run: Run) -> None:
    with source(disk, run) as endpoint, pytest.raises(SourceError) as caught:
        list(layers(endpoint))
    assert caught.value.id == "nbd-no-layers"
