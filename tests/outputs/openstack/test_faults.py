"""-o openstack: what fails later, and what becomes of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import refused
from tests.outputs.openstack.volumes import SIZES, SOURCE, attached, created, make
from v2v.errors import Cancelled
from v2v.events import Warned
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB, SourceDisk


def test_a_volume_that_cannot_be_made_leaves_nothing(cloud: Cloud, run: Run) -> None:
    cloud.state.created_status = "error"
    error = refused("target-state", make(cloud).create_disks, SOURCE, SIZES, run)
    assert "'error'" in error.message
    assert cloud.state.volumes == {}


def test_a_disk_of_whole_gibibytes_in_an_encrypted_volume(cloud: Cloud, run: Run) -> None:
    """Its header takes a part of the volume; other disks have room beside it."""
    output = make(cloud, os="secret")
    source = replace(SOURCE, disks=(SOURCE.disks[0], replace(SOURCE.disks[0], location="/b")))
    disks = output.create_disks(source, [GiB, 3 * MiB], run)
    assert [cloud.state.volumes[disk.working]["size"] for disk in disks] == [2, 1]
    with output.connect(disks, run) as sinks:
        sinks[0].write(GiB - 512, memoryview(b"v2v!" * 128))


def test_a_volume_that_cannot_be_attached(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    cloud.state.attach_works = False

    def connect() -> None:
        with output.connect(disks, run):
            raise AssertionError

    assert "attaching" in refused("target-state", connect).message
    cloud.state.attach_works = True
    with output.connect(disks, run) as sinks:
        assert len(sinks) == 2


def test_a_device_that_does_not_appear(cloud: Cloud, run: Run, monkeypatch) -> None:
    """v2v runs elsewhere."""
    output, disks = created(cloud, run)
    cloud.state.device_appears = False

    def connect() -> None:
        with output.connect(disks, run):
            raise AssertionError

    monkeypatch.setattr("v2v.outputs._openstack.devices.READY_SECONDS", 0.0)
    refused("volume-device", connect)
    for disk in disks:  # of an earlier time, which udev has not yet removed
        (cloud.state.by_id / f"virtio-{disk.working[:20]}").symlink_to("/dev/no-such-device")
    refused("volume-device", connect)
    assert attached(cloud) == []


@pytest.mark.parametrize("error", [RuntimeError, Cancelled])
def test_a_copy_that_fails_leaves_nothing_attached(cloud: Cloud, run: Run, error) -> None:
    output, disks = created(cloud, run)
    with pytest.raises(error), output.connect(disks, run):
        assert len(attached(cloud)) == 2
        if error is Cancelled:
            run.cancel.cancel()
        raise error("on the way")
    assert attached(cloud) == []
    assert list(cloud.state.by_id.iterdir()) == []


def test_an_old_name_of_another_device_is_not_written_to(
    cloud: Cloud, run: Run, tmp_path: Path, monkeypatch
) -> None:
    """Until udev has removed it, it may lead to what was attached meanwhile."""
    output, disks = created(cloud, run)
    for disk in disks:  # the kernel's word: the file behind the name is another volume
        (tmp_path / disk.working).mkdir()
        (tmp_path / disk.working / "serial").write_text("0" * 20)
    monkeypatch.setattr("v2v.outputs._openstack.devices.BLOCK", tmp_path)
    monkeypatch.setattr("v2v.outputs._openstack.devices.READY_SECONDS", 0.0)

    def connect() -> None:
        with output.connect(disks, run):
            raise AssertionError

    refused("volume-device", connect)
    for disk in disks:
        (tmp_path / disk.working / "serial").write_text(disk.working[:20] + "\n")
    with output.connect(disks, run) as sinks:
        assert len(sinks) == 2


def test_a_volume_that_stays_attached_is_told(cloud: Cloud, run: Run, events_seen) -> None:
    output, disks = created(cloud, run)
    with pytest.raises(RuntimeError, match="the first"), output.connect(disks, run):
        cloud.state.fail("DELETE", "os-volume_attachments", 500)
        raise RuntimeError("the first")
    assert [one.id for one in events_seen if isinstance(one, Warned)] == ["volume-attached"]
    output.discard(disks, run)
    assert cloud.state.volumes == {}


def test_one_volume_that_is_held_keeps_no_other_attached(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)

    def connect() -> None:
        with output.connect(disks, run):
            cloud.state.held.add(disks[0].working)

    assert disks[0].working in refused("target-refused", connect).message
    assert attached(cloud) == [disks[0].working]


def test_discard_goes_on_past_what_cannot_be_deleted(cloud: Cloud, run: Run) -> None:
    """All that is left is told; when it can be deleted, so it is."""
    source = replace(SOURCE, disks=(*SOURCE.disks, SourceDisk("/c", DiskFormat.RAW, MiB)))
    output = make(cloud)
    disks = output.create_disks(source, [*SIZES, MiB], run)
    volumes = [disk.working for disk in disks]
    cloud.state.undeletable.update(volumes[:2])
    error = refused("target-refused", output.discard, disks, run)
    assert all(one in error.message for one in volumes[:2]) and volumes[2] not in error.message
    assert list(cloud.state.volumes) == volumes[:2]
    cloud.state.undeletable.clear()
    output.discard(disks, run)
    assert cloud.state.volumes == {}


def test_a_volume_that_nova_has_not_yet_let_go(cloud: Cloud, run: Run) -> None:
    """Cinder has it free a little before."""
    output, disks = created(cloud, run)
    for _ in range(2):
        with output.connect(disks, run):
            assert len(attached(cloud)) == 2
        assert set(cloud.state.remembered) == {disk.working for disk in disks}


def test_a_job_that_goes_on_in_another_server(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    other = cloud.state.add_server()
    with output.connect(disks, run), make(cloud, **{"oo server-id": other}).connect(disks, run):
        servers = [one["attachments"][0]["server_id"] for one in cloud.state.volumes.values()]
        assert servers == [other, other]


def test_a_service_that_goes_away(cloud: Cloud, run: Run) -> None:
    output = make(cloud)
    output.check_source(SOURCE, run)
    for status in (None, 503):
        cloud.state.fail("POST", "/volumes$", status, times=1)
        id = "target-unreachable" if status is None else "target-refused"
        refused(id, output.create_disks, SOURCE, SIZES, run)
    assert cloud.state.volumes == {}


def test_a_volume_that_somebody_deleted(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    del cloud.state.volumes[disks[0].working]

    def connect() -> None:
        with output.connect(disks, run):
            raise AssertionError

    refused("target-lost", connect)


@pytest.mark.parametrize(
    "nonsense", [{"id": "../../etc"}, {"attachments": ["x"]}, {"attachments": 7}]
)
def test_a_server_that_answers_nonsense(cloud: Cloud, run: Run, nonsense) -> None:
    output, disks = created(cloud, run)
    cloud.state.volumes[disks[0].working].update(nonsense)
    refused("target-answer", output.check_source, SOURCE, run)


def test_a_server_that_hangs_does_not_hold_up_who_cancels(cloud: Cloud, run: Run) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang(line: str) -> None:
        if line.endswith("/limits"):
            asked.set()
            answer.wait()

    def cancel() -> None:
        asked.wait()
        run.cancel.cancel()

    cloud.state.watch = hang
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            make(cloud).check_source(SOURCE, run)
    finally:
        answer.set()
        thread.join()
