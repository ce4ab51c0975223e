"""Where network cards go: what each output takes, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outputs.migrating import Jobs, refused
from v2v.errors import TargetError
from v2v.job import NicMap, StorageMap
from v2v.network import unused_maps
from v2v.outputs._proxmox.cluster import bridge_of
from v2v.types import DiskFormat, MiB, Nic, Source, SourceDisk

MAC = "52:54:00:12:34:56"
MAPS = {
    "network": NicMap("network", None, "network", "lan"),
    "bridge": NicMap("bridge", "br0", "bridge", "br1"),
    "mac": NicMap("mac", MAC, "network", "lan"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web.img"
    path.write_bytes(bytes(510) + b"\x55\xaa" + bytes(MiB - 512))
    return path


@pytest.mark.parametrize("kind", ["bridge", "network"])
def test_a_map_that_would_do_nothing_is_refused(kind: str, disk: Path, tmp_path: Path) -> None:
    jobs, words = Jobs(tmp_path / "jobs", "qemu"), {"-os": str(tmp_path)}
    error = refused("option-unknown", lambda: jobs.convert(disk, words, nic_maps=[MAPS[kind]]))
    assert f"--{kind}" in error.message
    assert not list(jobs.folder.iterdir())


def test_the_script_of_qemu_has_the_address_that_is_asked_for(disk: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", "qemu")
    result = jobs.convert(disk, {"-os": str(tmp_path)}, nic_maps=[MAPS["mac"]])
    assert MAC in Path(str(result.guest.metadata)).read_text()


def test_a_rehearsal_takes_what_the_migration_will(disk: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", "null")
    jobs.convert(disk, {}, nic_maps=[MAPS["mac"]], storage_maps=[StorageMap("1", "fast")])
    assert jobs.warned() == []


def test_what_is_refused_names_the_option_that_maps_it() -> None:
    """--network maps no card that is on a bridge at the source."""
    with pytest.raises(TargetError) as caught:
        bridge_of(Nic(mac=MAC, kind="bridge", network="br0"), {})
    assert "--bridge 'br0:BRIDGE'" in str(caught.value.hint)


def test_addresses_may_be_spelled_in_capitals() -> None:
    disks = (SourceDisk("/x", DiskFormat.RAW),)
    assert (
        unused_maps(Source("web", "ova", disks, nics=(Nic(mac=MAC.upper()),)), [MAPS["mac"]]) == []
    )
