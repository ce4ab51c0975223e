"""Disks that are streamed to a real ovirt-imageio daemon, over TLS."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.servers import listening
from tests.copy.copying import copied, noise, nothing_left_over
from tests.fakes.nbd_server import NbdServer, serve
from tests.imageio import Daemon, imageio_daemon
from v2v.cancel import Cancel
from v2v.copy.ledger import Ledger
from v2v.outputs._ovirt.imageio import ImageioSink, imageio_sink
from v2v.outputs._ovirt.places import Transfer
from v2v.types import KiB, MiB

SIZE = 24 * MiB + 512 * 3


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with imageio_daemon() as found:
        yield found


def holey(size: int, seed: int) -> bytearray:
    """Data, and holes of all lengths at odd places."""
    content, chance = noise(size, seed=seed), random.Random(seed)
    position = 0
    while position < size:
        position += chance.randrange(1, 3 * MiB)
        end = min(position + int(2 ** chance.uniform(9, 22)), size)
        content[position:end] = bytes(max(end - position, 0))
        position = end
    return content


@contextmanager
def raw_target(daemon: Daemon, folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """A raw file: one writer."""
    path = folder / "target.raw"
    path.touch()
    os.truncate(path, size)
    yield path, f"file://{path}"


@contextmanager
def qcow2_target(daemon: Daemon, folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """A qcow2 image behind qemu-nbd, as on an oVirt host: several writers."""
    path, sock = folder / "target.qcow2", daemon.folder / "nbd"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    argv = ["qemu-nbd", "--persistent", "--shared=10", "--format=qcow2", "--cache=writeback"]
    options = ["--discard=unmap", "--detect-zeroes=unmap", f"--socket={sock}", str(path)]
    with listening([*argv, *options], sock):
        yield path, f"nbd:unix:{sock}"


@contextmanager
def sink_to(transfer: Transfer, **options: Any) -> Iterator[ImageioSink]:
    with imageio_sink(
        transfer, **{"is_zero": True, "stall": 10.0, "cancel": Cancel(), **options}
    ) as sink:
        yield sink


@contextmanager
def source(content: bytearray) -> Iterator[NbdServer]:
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), content) as server:
        server.extents = server.true_extents
        yield server


@pytest.mark.parametrize("target", [raw_target, qcow2_target])
def test_every_byte_arrives(daemon: Daemon, tmp_path: Path, target: Any) -> None:
    size = SIZE
    content = holey(size, seed=5)
    with (
        nothing_left_over(),
        source(content) as server,
        target(daemon, tmp_path, size) as (
            path,
            url,
        ),
    ):
        transfer = daemon.transfer(url, size)
        with sink_to(transfer, request_size=4 * MiB) as sink:
            assert sink.workers == (1 if target is raw_target else 4)
            result, _ = copied(server.endpoint(), sink, ledger=Ledger(None), verify=1.0)
            assert result.verified == 1.0
            assert result.write_size > 1 * MiB
            extents = list(sink.extents())
    raw = tmp_path / "result.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
    found = raw.read_bytes()  # the daemon fills the last block of a file up
    assert found[:size] == content
    assert not any(found[size:])
    assert extents[-1].end >= size
    if target is qcow2_target:
        assert any(extent.zero for extent in extents)
        assert path.stat().st_size < size  # the holes are


def test_holes_of_a_disk_that_held_something_become_zeroes(daemon: Daemon, tmp_path: Path) -> None:
    content = holey(4 * MiB, seed=6)
    content[1 * MiB : 3 * MiB] = bytes(2 * MiB)
    path = tmp_path / "old.raw"
    path.write_bytes(b"x" * len(content))
    with source(content) as server:
        transfer = daemon.transfer(f"file://{path}", len(content))
        with sink_to(transfer, is_zero=False) as sink:
            copied(server.endpoint(), sink)
    assert path.read_bytes() == content
    assert path.stat().st_blocks * 512 < len(content) - 1 * MiB + 64 * KiB
