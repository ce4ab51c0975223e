"""-o openstack: what is left, of finished guests and of discarded jobs."""

from __future__ import annotations

import os
import shlex
import threading
from dataclasses import replace

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.openstack.server import PROJECT
from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import refused
from tests.outputs.openstack.volumes import SIZES, SOURCE, created, make
from tests.places import loop_device
from v2v.events import Warned
from v2v.outputs.openstack import OpenStackOutput
from v2v.run import Run
from v2v.types import MiB, Nic, TargetDisk


def test_what_a_finished_guest_has(cloud: Cloud, run: Run) -> None:
    output = make(cloud, **{"os": "fast", "oo guest-id": "id 7", "oo availability-zone": "east"})
    disks = output.create_disks(SOURCE, SIZES, run)
    ref = output.finalize(
        replace(SOURCE, genid="6f1f8b5e-0000-4000-8000-000000000000"),
        replace(GUEST, boot_disk=1),
        disks,
        run,
    )
    first, second = (cloud.state.volumes[disk.working] for disk in disks)
    assert [one["name"] for one in (first, second)] == ["web1-sda", "web1-sdb"]
    assert [one["size"] for one in (first, second)] == [1, 2]
    assert [one["volume_type"] for one in (first, second)] == ["fast", "slow"]
    assert [one["availability_zone"] for one in (first, second)] == ["east", "east"]
    assert [one["bootable"] for one in (first, second)] == ["false", "true"]
    assert second["volume_image_metadata"]["hw_disk_bus"] == "virtio"
    assert first["volume_image_metadata"] == {}
    assert second["metadata"]["v2v_guest_id"] == "id 7"
    assert second["metadata"]["v2v_vm_generation_id"] == "6f1f8b5e-0000-4000-8000-000000000000"
    assert "v2v_state" not in second["metadata"]
    assert f"--volume {disks[1].working} " in (ref.start_hint or "")
    assert f"uuid={disks[0].working},source_type=volume" in (ref.start_hint or "")


def in_the_middle_of_the_end(
    cloud: Cloud, run: Run
) -> tuple[OpenStackOutput, tuple[TargetDisk, ...]]:
    """The first volume is handed over, the second is not."""
    output, disks = created(cloud, run)
    cloud.state.fail("PUT", f"/volumes/{disks[1].working}", 500)
    refused("target-refused", output.finalize, SOURCE, GUEST, disks, run)
    return output, disks


def test_the_line_that_boots_keeps_networks_and_addresses(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    nics = (
        Nic(mac="52:54:00:01:02:03", network="it's; rm -rf /"),
        Nic(mac="52:54:00:01:02:04", connected=False),
    )
    hint = output.finalize(SOURCE, replace(GUEST, nics=nics), disks, run).start_hint or ""
    ports = [line.partition(")")[0] for line in hint.split("--port ")[1:]]
    first, second = (shlex.split(port.removeprefix("$(")) for port in ports)
    assert first[:6] == ["openstack", "port", "create", "-f", "value", "-c"]
    assert first[7:] == [
        "--network=it's; rm -rf /",
        "--mac-address",
        "52:54:00:01:02:03",
        "--",
        "web1-nic1",
    ]
    assert second[7] == "--network=NETWORK"
    assert "--disable" in second and "--disable" not in first
    without = replace(GUEST, nics=())
    assert " --no-network " in (output.finalize(SOURCE, without, disks, run).start_hint or "")


def test_the_end_goes_on_in_a_full_project(cloud: Cloud, run: Run) -> None:
    output, disks = in_the_middle_of_the_end(cloud, run)
    cloud.state.most_gigabytes, cloud.state.most_volumes = 3, 2
    output.check_source(SOURCE, run)
    output.finalize(SOURCE, GUEST, disks, run)
    assert [one["name"] for one in cloud.state.volumes.values()] == ["web1-sda", "web1-sdb"]


def test_a_volume_that_is_handed_over_may_be_in_use(cloud: Cloud, run: Run) -> None:
    output, disks = in_the_middle_of_the_end(cloud, run)
    first = cloud.state.volumes[disks[0].working]
    first.update(status="in-use", attachments=[{"server_id": cloud.state.add_server()}])
    output.finalize(SOURCE, GUEST, disks, run)
    assert first["status"] == "in-use"
    assert cloud.state.volumes[disks[1].working]["name"] == "web1-sdb"


def test_discard_tells_of_a_volume_that_is_handed_over(cloud: Cloud, run: Run, events_seen) -> None:
    output, disks = in_the_middle_of_the_end(cloud, run)
    output.discard(disks, run)
    assert list(cloud.state.volumes) == [disks[0].working]
    (warned,) = [one for one in events_seen if isinstance(one, Warned)]
    assert warned.id == "target-left" and disks[0].working in warned.text


@pytest.mark.parametrize("status", ["creating", "error"])
def test_a_volume_that_was_being_made_when_the_job_was_killed(
    cloud: Cloud, run: Run, status: str
) -> None:
    _, disks = created(cloud, run)
    half = cloud.state.volumes[disks[1].working]
    half.update(status=status, next=["available"] if status == "creating" else [])
    again = make(cloud).create_disks(SOURCE, SIZES, run)
    assert sorted(cloud.state.volumes) == sorted(disk.working for disk in again)


def test_a_hostile_name_is_no_option_and_no_command(cloud: Cloud, run: Run) -> None:
    source = replace(SOURCE, name="--os-cloud=x; rm -rf / \x1b[2J" + "n" * 300)
    output = make(cloud)
    output.check_source(source, run)
    disks = output.create_disks(source, SIZES, run)
    ref = output.finalize(source, GUEST, disks, run)
    assert (ref.start_hint or "").partition(" -- ")[2].startswith("'--os-cloud=x; rm -rf / ")
    assert all(len(one["name"]) <= 255 for one in cloud.state.volumes.values())


def test_another_project_does_not_hide_what_the_job_made(cloud: Cloud, run: Run) -> None:
    """There it would all seem to be gone."""
    _, disks = created(cloud, run)
    output = make(cloud, **{"oo os-project-name": "other"})
    refused("target-project", output.discard, disks, run)
    assert PROJECT in refused("target-project", output.check_source, SOURCE, run).message
    assert len(cloud.state.volumes) == 2


def test_a_server_that_hangs_in_a_change(cloud: Cloud, run: Run, monkeypatch) -> None:
    output, disks = created(cloud, run)
    answer = threading.Event()
    cloud.state.watch = lambda line: answer.wait() if line.startswith("PUT") else None
    monkeypatch.setattr("v2v.outputs._openstack.cloud.ASK_SECONDS", 1.0)
    try:
        refused("target-unreachable", output.finalize, SOURCE, GUEST, disks, run)
    finally:
        answer.set()


def test_discard_leaves_strangers_volumes(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    with Run.create(run.folder.parent, "other") as other:
        theirs = output.create_disks(SOURCE, SIZES, other)
        output.discard(disks, run)
        assert sorted(cloud.state.volumes) == sorted(disk.working for disk in theirs)


def test_discard_of_a_job_that_made_nothing_asks_nobody(cloud: Cloud, run: Run) -> None:
    make(cloud).discard((), run)
    assert cloud.state.seen == []


def test_a_block_device(cloud: Cloud, run: Run, need_tool) -> None:
    """It is refused while a volume manager of this host holds it; then it is written."""
    need_tool("losetup")
    output, disks = created(cloud, run)
    backing = cloud.state.folder / "volumes" / disks[0].working
    with loop_device(backing) as device, output.connect(disks, run):
        link = cloud.state.by_id / f"virtio-{disks[0].working[:20]}"
        link.unlink()
        link.symlink_to(device)
        again = cloud.state.volumes[disks[0].working]["attachments"]
        part = link.with_name(link.name + "-part1")  # of a volume that has partitions
        part.symlink_to("/dev/null")

        def connect() -> None:
            with output.connect(disks, run):
                raise AssertionError

        held = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            refused("target-in-use", connect)
        finally:
            os.close(held)
        part.unlink()
        link.symlink_to(device)  # it was detached when it was refused
        cloud.state.volumes[disks[0].working].update(status="in-use", attachments=again)
        with output.connect(disks, run) as sinks:
            sinks[0].write(0, memoryview(b"v2v!" * 1024))
            sinks[0].zero(4096, MiB)
            sinks[0].flush()
        with backing.open("rb") as file:
            assert file.read(8192) == b"v2v!" * 1024 + bytes(4096)
            file.seek(-MiB, os.SEEK_END)
            assert file.read() == bytes(MiB)
