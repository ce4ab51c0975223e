"""`v2v list` of a real libvirtd: states, sizes, snapshots, and what stands in the way."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

import v2v
from tests.libvirtd import Libvirtd, domain_xml, file_disk, libvirtd
from v2v.events import Event, Warned
from v2v.types import MiB

__all__ = ["libvirtd"]


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    need_tool("qemu-img")


def image(path: Path) -> Path:
    """8 MiB, of which a MiB is written."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    write = ["qemu-io", "-c", "write -P 7 0 1M", path]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    return path


def test_vms_of_a_libvirt(libvirtd: Libvirtd, tmp_path: Path) -> None:
    good, gone = image(tmp_path / "good.qcow2"), image(tmp_path / "gone.qcow2")
    nbd = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<source protocol='nbd' name='x'><host name='127.0.0.1' port='1'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    seen: list[Event] = []
    with ExitStack() as stack:
        defined = {
            name: stack.enter_context(libvirtd.defined(xml))
            for name, xml in {
                "good": domain_xml("good", file_disk(good)),
                "gone": domain_xml("gone", file_disk(gone)),
                "net": domain_xml("net", nbd),
                "running": domain_xml("running", file_disk(image(tmp_path / "r.qcow2"))),
                "paused": domain_xml("paused"),
            }.items()
        }
        gone.unlink()
        defined["good"].snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
        defined["running"].create()
        defined["paused"].create()
        defined["paused"].suspend()
        found = v2v.list_guests(
            input_options={"-ic": libvirtd.uri}, jobs=tmp_path / "jobs", emit=seen.append
        )
        ids = {name: domain.UUIDString() for name, domain in defined.items()}
    vms = {one.name: one for one in found}
    assert [one.name for one in found] == sorted(defined)
    assert {one.name: one.id for one in found} == ids
    assert {name: one.power for name, one in vms.items()} == {
        "good": "off",
        "gone": "off",
        "net": "off",
        "running": "on",
        "paused": "suspended",
    }
    assert {name: [f.id for f in one.findings] for name, one in vms.items()} == {
        "good": [],
        "gone": ["source-missing"],
        "net": ["nbd-unreachable"],
        "running": ["source-running"],
        "paused": ["source-running"],
    }
    assert vms["running"].convertible and not vms["gone"].convertible
    assert vms["good"].snapshots == ("before",)
    assert (vms["good"].disks, vms["good"].provisioned) == (1, 8 * MiB)
    assert MiB <= (vms["good"].used or 0) < 4 * MiB
    assert vms["gone"].provisioned is None
    assert vms["running"].provisioned == 8 * MiB
    assert vms["good"].memory == 32 * MiB and vms["good"].vcpus == 2
    assert not [one for one in seen if isinstance(one, Warned)]
    assert list((tmp_path / "jobs" / ".scratch").iterdir()) == []


def test_patterns_and_ids(libvirtd: Libvirtd, tmp_path: Path) -> None:
    xml = [domain_xml(name, file_disk(image(tmp_path / name))) for name in ("web1", "web2")]
    options = {"-ic": libvirtd.uri}
    with libvirtd.defined(xml[0]) as one, libvirtd.defined(xml[1]):

        def names(*patterns: str) -> list[str]:
            found = v2v.list_guests(*patterns, input_options=options, jobs=tmp_path / "jobs")
            return [guest.name for guest in found]

        assert names() == ["web1", "web2"]
        assert names("*2") == ["web2"]
        assert names(one.UUIDString()) == ["web1"]
        assert names("nobody") == []
