"""A host for each test, and a guest whose disks are copied already."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outputs.proxmox.staged import Staged
from tests.proxmox_host import Host, proxmox_host
from v2v.run import Run
from v2v.types import DiskFormat, MiB, Source, SourceDisk

SIZE = 3 * MiB


@pytest.fixture
def host(tmp_path: Path, monkeypatch) -> Iterator[Host]:
    with proxmox_host(tmp_path / "host", monkeypatch) as host:
        host.server.bridges.append("default")
        yield host


@pytest.fixture
def source() -> Source:
    disk = SourceDisk("/none", DiskFormat.RAW, SIZE)
    return Source(name="web", input="disk", disks=(disk, disk))


@pytest.fixture
def staged(host: Host, source: Source, run: Run) -> Staged:
    return Staged(host, source, run, [random.Random(i).randbytes(SIZE) for i in range(2)])
