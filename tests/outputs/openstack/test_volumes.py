"""-o openstack: what it refuses, what it leaves, and what becomes of killed jobs."""

from __future__ import annotations

import os
import shlex
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.http_server import serve_folder
from tests.fakes.openstack.server import PROJECT
from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import KilledJob, make_guest
from tests.places import loop_device
from v2v import api, options
from v2v.errors import Cancelled, V2VError
from v2v.events import Warned
from v2v.job import ConversionOptions, StorageMap
from v2v.outputs.openstack import OpenStackOptions, OpenStackOutput
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB, Nic, Source, SourceDisk, TargetDisk

SOURCE = Source(
    name="web1",
    input="disk",
    disks=(
        SourceDisk("/a", DiskFormat.RAW, 3 * MiB),
        SourceDisk("/b", DiskFormat.RAW, GiB + 512, target_storage="slow"),
    ),
)
SIZES = [3 * MiB, GiB + 512]


def make(cloud: Cloud, **more: str) -> OpenStackOutput:
    words = {**cloud.attaching, **{f"-{key}": word for key, word in more.items()}}
    return make_of(words)


def make_of(words: dict[str, str]) -> OpenStackOutput:
    return OpenStackOutput(options.parse(OpenStackOptions, words, module="-o openstack"))


def refused(id: str, action: Any, *arguments: Any) -> V2VError:
    with pytest.raises(V2VError) as caught:
        action(*arguments)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


def created(cloud: Cloud, run: Run) -> tuple[OpenStackOutput, tuple[TargetDisk, ...]]:
    output = make(cloud)
    disks = output.create_disks(SOURCE, SIZES, run)
    run.journal.put("disks", disks)
    return output, disks


# What is refused ----------------------------------------------------------------------------------


def test_an_unknown_volume_type(cloud: Cloud, run: Run) -> None:
    error = refused("target-storage", make(cloud, os="golden").check_source, SOURCE, run)
    assert "golden" in error.message
    other = replace(SOURCE.disks[0], target_storage="lost")
    refused("target-storage", make(cloud).check_source, replace(SOURCE, disks=(other,)), run)


def test_an_unknown_server(cloud: Cloud, run: Run) -> None:
    stranger = "12345678-1234-1234-1234-123456789abc"
    refused("server-unknown", make(cloud, **{"oo server-id": stranger}).check_source, SOURCE, run)
    refused("option-value", make(cloud, **{"oo server-id": "web"}).check_source, SOURCE, run)


def test_a_server_that_is_shut_off(cloud: Cloud, run: Run) -> None:
    cloud.state.servers[cloud.server]["status"] = "SHUTOFF"
    assert "SHUTOFF" in refused("target-state", make(cloud).check_source, SOURCE, run).message


def test_quotas(cloud: Cloud, run: Run) -> None:
    output = make(cloud)
    cloud.state.most_gigabytes = 3
    output.check_source(SOURCE, run)
    output.check_sizes(SIZES, [0, 0], run)
    cloud.state.most_gigabytes = 2
    error = refused("target-quota", output.check_sizes, SIZES, [0, 0], run)
    assert "need 3 gigabytes" in error.message and "leaves 2" in error.message
    cloud.state.most_gigabytes, cloud.state.most_volumes = -1, 1
    refused("target-quota", output.check_source, SOURCE, run)


def test_a_quota_that_the_job_itself_uses_up(cloud: Cloud, run: Run) -> None:
    cloud.state.most_gigabytes, cloud.state.most_volumes = 3, 2
    output, _ = created(cloud, run)
    output.check_source(SOURCE, run)
    output.check_sizes(SIZES, [0, 0], run)


def test_a_quota_that_is_used_up_meanwhile(cloud: Cloud, run: Run) -> None:
    cloud.state.most_volumes = 1
    refused("target-quota", make(cloud).create_disks, SOURCE, SIZES, run)
    assert cloud.state.volumes == {}


def test_half_a_sector(cloud: Cloud, run: Run) -> None:
    refused("target-disk-size", make(cloud).check_sizes, [MiB + 1], [0], run)


def test_a_name_that_is_taken(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    with output.connect(disks, run):
        pass
    output.finalize(SOURCE, GUEST, disks, run)
    output.check_source(SOURCE, run)  # its own are not in its way
    with Run.create(run.folder.parent, "other") as other:
        assert "web1-sda" in refused("target-exists", output.check_source, SOURCE, other).message


# What fails later ---------------------------------------------------------------------------------


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


def attached(cloud: Cloud) -> list[str]:
    return [one["id"] for one in cloud.state.volumes.values() if one["attachments"]]


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


# What is left -------------------------------------------------------------------------------------


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


# The server that we run in ------------------------------------------------------------------------


def metadata_words(cloud: Cloud, address: str) -> dict[str, str]:
    words = {**cloud.attaching, "-oo metadata-service": address}
    del words["-oo server-id"]
    return words


def test_the_metadata_service_tells_which_server(cloud: Cloud, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "web/openstack/latest/meta_data.json"
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"uuid": "{cloud.server}", "name": "converter"}}')
    with serve_folder(tmp_path / "web") as address:
        make_of(metadata_words(cloud, address)).check_source(SOURCE, run)
        for text in ("[]", "no json", '{"uuid": "../x"}'):
            file.write_text(text)
            refused(
                "metadata-service",
                make_of(metadata_words(cloud, address)).check_source,
                SOURCE,
                run,
            )
        file.unlink()
        refused(
            "metadata-service", make_of(metadata_words(cloud, address)).check_source, SOURCE, run
        )


def test_a_host_that_is_no_server_of_openstack_is_asked_nothing(
    cloud: Cloud, run: Run, tmp_path: Path, monkeypatch
) -> None:
    product = tmp_path / "product_name"
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    monkeypatch.setattr("v2v.outputs._openstack.server.PRODUCT", product)
    words = metadata_words(cloud, "")
    del words["-oo metadata-service"]
    refused("server-unknown", make_of(words).check_source, SOURCE, run)


def test_the_id_of_another_server_is_refused(
    cloud: Cloud, run: Run, tmp_path: Path, monkeypatch
) -> None:
    """A volume would be attached to it, and not show up here."""
    product, machine = tmp_path / "product_name", tmp_path / "product_uuid"
    product.write_text("OpenStack Nova\n")
    monkeypatch.setattr("v2v.outputs._openstack.server.PRODUCT", product)
    monkeypatch.setattr("v2v.outputs._openstack.server.MACHINE", machine)
    make(cloud).check_source(SOURCE, run)  # nobody can tell
    other = cloud.state.add_server()
    machine.write_text(f"{other}\n")
    assert other in refused("server-unknown", make(cloud).check_source, SOURCE, run).message
    machine.write_text(f"{cloud.server.upper()}\n")
    make(cloud).check_source(SOURCE, run)


# Killed jobs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", ["POST /volumes", "POST os-volume_attachments", "copy", "POST /action"]
)
def test_a_killed_job_is_discarded(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    job = KilledJob(tmp_path, "openstack", cloud.attaching, cloud, make_guest(tmp_path), moment)
    assert len(cloud.state.volumes) == 1
    if moment == "copy":
        assert len(attached(cloud)) == 1
    job.discard()
    assert cloud.state.volumes == {}
    assert list(cloud.state.by_id.iterdir()) == []
    assert not any(job.jobs.iterdir())


@pytest.mark.parametrize(
    "moment", ["POST /volumes", "POST os-volume_attachments", "copy", "PUT /volumes/"]
)
def test_a_killed_job_goes_on(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    guest = make_guest(tmp_path)
    job = KilledJob(tmp_path, "openstack", cloud.attaching, cloud, guest, moment)
    job.resume()
    ((identifier, volume),) = cloud.state.volumes.items()
    assert (volume["name"], volume["status"]) == ("web1-sda", "available")
    with (cloud.state.folder / "volumes" / identifier).open("rb") as file:
        assert file.read(guest.stat().st_size) == guest.read_bytes()
    with suppress(V2VError):
        job.discard()
    assert len(cloud.state.volumes) == 1


def test_a_whole_job(cloud: Cloud, tmp_path: Path) -> None:
    result = api.convert(
        str(make_guest(tmp_path, MiB)),
        output="openstack",
        storage="fast",
        output_options=cloud.attaching,
        conversion=ConversionOptions(convert=False),
        storage_maps=[StorageMap("1", "slow")],
        jobs=tmp_path / "jobs",
    )
    (volume,) = cloud.state.volumes.values()
    assert volume["volume_type"] == "slow"
    assert (result.guest.start_hint or "").startswith("openstack server create")
    journal = next((tmp_path / "jobs").rglob("journal")).read_text()
    assert "secret word" not in journal
