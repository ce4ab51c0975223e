"""-o rhv-upload: whole jobs, through a fake engine and the real imageio daemon, and what goes
wrong in the middle of them."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import v2v
from tests.contract.output_suite import write_random_disk
from tests.ovirt_engine import Engine
from v2v.api import list_jobs
from v2v.cancel import Cancel
from v2v.copy import engine as copy_engine
from v2v.copy import target as copy_target
from v2v.errors import Cancelled, V2VError
from v2v.events import Event, Warned
from v2v.job import CopyOptions, NicMap
from v2v.outputs._ovirt import disks, domains, imageio, precheck, transfers
from v2v.outputs._ovirt.daemon import Connection
from v2v.outputs._ovirt.imageio import ImageioSink
from v2v.types import KiB, MiB

SIZE = 24 * MiB
CHECKPOINT = 4 * MiB


@pytest.fixture
def engine(installed: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    installed.recover()
    monkeypatch.setattr(copy_target, "CHECKPOINT", CHECKPOINT)
    monkeypatch.setattr(copy_target, "UNRECORDED", 2 * CHECKPOINT)
    return installed


class Jobs:
    """One job of a disk with random data, `convert`ed without converting, and resumed."""

    def __init__(self, engine: Engine, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.engine = engine
        self.patch = patch
        self.folder = folder
        self.image = folder / "web.img"
        write_random_disk(self.image, SIZE, 7)
        self.write([])
        self.events: list[Event] = []

    def write(self, data: Sequence[tuple[int, int]]) -> None:
        """Have random data in these places, (offset, length), and nowhere else; [] is as it is."""
        if data:
            self.image.write_bytes(b"")
            os.truncate(self.image, SIZE)
        with self.image.open("r+b") as file:
            for offset, length in data:
                file.seek(offset)
                file.write(os.urandom(length))
            file.seek(510)
            file.write(b"\x55\xaa")  # or it would not pass for a disk
        self.content = self.image.read_bytes()

    def convert(self, cancel: Cancel | None = None, **more: Any) -> v2v.Result:
        words = {**self.engine.words, "-os": "data", **more.pop("words", {})}
        return v2v.convert(
            self.image,
            output="rhv-upload",
            output_options=words,
            conversion=v2v.ConversionOptions(convert=False),
            copy=CopyOptions(request_size=MiB, stall_timeout=60.0),
            jobs=self.folder / "jobs",
            emit=self.events.append,
            cancel=cancel,
            **more,
        )

    def fails(self, **more: Any) -> V2VError:
        with pytest.raises(V2VError) as caught:
            self.convert(**more)
        return caught.value

    def resume(self) -> v2v.Result:
        return v2v.resume(self.id, jobs=self.folder / "jobs", emit=self.events.append)

    def discard(self) -> None:
        v2v.discard(self.id, jobs=self.folder / "jobs", emit=self.events.append)

    @property
    def id(self) -> str:
        (job,) = list_jobs(self.folder / "jobs")
        return job.job_id

    def once_copying(self, action: Callable[[], None], at: type = ImageioSink) -> None:
        """Do something in the middle of the copy, when a part of it is safe on the target: before
        the second flush of the sink, or of the Connection, which nobody else has then."""
        count, whole = itertools.count(1), at.flush

        def flush(flushed: Any) -> None:
            if next(count) == 2:
                action()
            whole(flushed)

        self.patch.setattr(at, "flush", flush)

    @property
    def warnings(self) -> list[str]:
        return [event.id for event in self.events if isinstance(event, Warned)]

    def assert_complete(self, result: v2v.Result) -> None:
        (disk,) = result.guest.disks
        there = self.engine.model.disks[disk.location.rpartition("/")[2]]
        raw = self.folder / "raw"
        argv = ["qemu-img", "convert", "-f", disk.format, "-O", "raw", there.path, raw]
        subprocess.run(argv, check=True)
        assert raw.read_bytes() == self.content
        self.assert_nothing_open()

    def assert_nothing_open(self) -> None:
        model = self.engine.model
        assert {disk.status for disk in model.disks.values()} <= {"ok"}
        phases = {one.phase for one in model.transfers.values()}
        assert phases <= {"finished_success", "finished_failure", "finished_cleanup"}


@pytest.fixture
def jobs(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(engine, tmp_path, monkeypatch)


def test_a_job_makes_a_vm(jobs: Jobs) -> None:
    result = jobs.convert(name="web", nic_maps=[NicMap("network", None, "network", "vlan5")])
    jobs.assert_complete(result)
    (vm,) = jobs.engine.model.vms.values()
    assert vm.name == "web"
    assert vm.status == "down"
    assert [card.profile for card in vm.cards] == ["p3"]
    assert (result.guest.metadata or "").endswith(vm.id)


def test_it_is_started_when_asked(jobs: Jobs) -> None:
    jobs.convert(words={"--start": ""})
    assert [vm.status for vm in jobs.engine.model.vms.values()] == ["up"]


def test_chosen_uuids_are_taken(jobs: Jobs) -> None:
    uuid = "3d1c7f6e-0f0a-4c7e-9c39-0123456789ab"
    jobs.convert(words={"-oo ovirt-disk-uuid": uuid.upper()})
    assert list(jobs.engine.model.disks) == [uuid]


def test_what_was_on_a_block_device_does_not_shine_through(jobs: Jobs) -> None:
    jobs.assert_complete(jobs.convert(words={"-os": "blocks"}))
    (disk,) = jobs.engine.model.disks.values()
    assert not disk.sparse


def test_a_volume_that_does_not_grow_holds_data_between_small_holes(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holes that are not worth a request of their own are sent as zeroes, and take space."""
    monkeypatch.setattr(domains, "ROOM", 0)
    jobs.write([(offset, KiB * 4) for offset in range(0, SIZE // 2, 64 * KiB)])
    jobs.assert_complete(jobs.convert(words={"-os": "blocks", "-of": "qcow2"}))
    (disk,) = jobs.engine.model.disks.values()
    assert SIZE // 2 < (disk.initial_size or 0) < SIZE * 3 // 4


def test_through_the_proxy(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is a daemon, too; the host itself cannot be reached."""
    model = jobs.engine.model

    class Nowhere:
        def url(self, ticket: str) -> str:
            return f"https://127.0.0.1:1/images/{ticket}"

        def __getattr__(self, name: str) -> Any:
            return getattr(model.proxy, name)

    monkeypatch.setattr(model, "daemon", Nowhere())
    jobs.assert_complete(jobs.convert(words={"-oo rhv-direct": "false"}))
    jobs.discard()
    model.reset()
    monkeypatch.setattr(model, "proxy", model.proxy)


def test_nothing_is_sent_without_tls(jobs: Jobs) -> None:
    daemon = jobs.engine.model.daemon
    jobs.patch.setattr(daemon, "url", lambda ticket: f"http://127.0.0.1:1/images/{ticket}")
    assert jobs.fails().id == "transfer-failed"
    jobs.assert_nothing_open()


def test_on_a_host_of_ovirt_that_host_is_asked_for(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jobs.folder / "vdsm.id"
    path.write_text(f"{jobs.engine.model.vdsm_id}\n")
    monkeypatch.setattr(precheck, "VDSM_ID", path)
    jobs.convert()
    assert [one.host for one in jobs.engine.model.transfers.values()] == ["h1"]


def test_secrets_stay_with_us(jobs: Jobs) -> None:
    jobs.convert()
    secrets = [jobs.engine.model.password, "a-token-of-the-tests", "not this line"]
    secrets += jobs.engine.model.tickets
    assert len(secrets) == 4
    kept = [path.read_bytes() for path in (jobs.folder / "jobs").rglob("*") if path.is_file()]
    assert not [s for s in secrets for content in kept if s.encode() in content]


# Failures before the copy -------------------------------------------------------------------------


def test_a_disk_that_is_refused(jobs: Jobs) -> None:
    jobs.engine.model.faults.refused["POST /disks"] = "[Low disk space on Storage Domain data.]"
    error = jobs.fails()
    assert error.id == "target-refused"
    assert "Low disk space" in str(error)
    jobs.engine.model.faults.refused.clear()
    jobs.assert_complete(jobs.resume())


def test_a_disk_that_stays_locked(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.engine.model.faults.stuck_disks = True
    with monkeypatch.context() as patch:
        patch.setattr(disks, "REMOVE_SECONDS", 0.3)
        patch.setattr(disks.wait_ok, "__defaults__", (0.3,))
        assert jobs.fails().id == "target-timeout"
    assert "target-leftover" in jobs.warnings
    jobs.engine.model.faults.stuck_disks = False
    jobs.assert_complete(jobs.resume())


@pytest.mark.parametrize(
    "request_",
    ["POST /disks", "POST /imagetransfers", "POST /imagetransfers/", "POST /vms"],
)
def test_an_answer_that_is_lost(jobs: Jobs, request_: str) -> None:
    """The client sends the request once more, and is told that what it asks for is there; or, on a
    new connection, it does not."""
    lost = []

    def cut(what: str) -> None:
        if what.startswith(request_) and not lost:
            lost.append(what)
            raise ConnectionError

    jobs.engine.model.faults.before_answer = cut
    jobs.assert_complete(jobs.convert())
    assert lost
    assert len(jobs.engine.model.vms) == 1


def test_a_transfer_that_the_engine_pauses_at_once(jobs: Jobs) -> None:
    jobs.engine.model.faults.failing_transfers = True
    assert jobs.fails().id == "transfer-failed"
    jobs.assert_nothing_open()
    jobs.engine.model.faults.failing_transfers = False
    jobs.assert_complete(jobs.resume())


def test_a_transfer_that_does_not_begin(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "OPEN_SECONDS", 0.3)
    jobs.engine.model.faults.stuck_transfers = True
    assert jobs.fails().id == "target-timeout"
    assert "transfer-left" in jobs.warnings
    jobs.engine.model.faults.stuck_transfers = False
    jobs.discard()
    assert jobs.engine.model.disks == {}


# Failures in the middle of the copy ---------------------------------------------------------------


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_daemon_that_is_restarted(jobs: Jobs, format: str) -> None:
    """It has forgotten its tickets: the transfer is over, and what was copied is not."""
    daemon = jobs.engine.model.daemon

    def restart() -> None:
        daemon.stop()
        daemon.start()

    jobs.once_copying(restart)
    assert jobs.fails(words={"-of": format}).id == "transfer-ended"
    jobs.assert_nothing_open()
    result = jobs.resume()
    jobs.assert_complete(result)
    assert result.copies[0].resumed >= CHECKPOINT


def test_a_transfer_that_the_engine_pauses(jobs: Jobs) -> None:
    jobs.once_copying(jobs.engine.model.pause_by_system)
    assert jobs.fails().id == "transfer-ended"
    assert "transfer-paused" in jobs.warnings
    jobs.assert_nothing_open()
    result = jobs.resume()
    jobs.assert_complete(result)
    assert result.copies[0].resumed >= CHECKPOINT


def test_a_ticket_that_expires(jobs: Jobs) -> None:
    """As when the engine is away, and nothing is sent for long. Nothing is sent meanwhile here, for
    there is one connection."""
    model = jobs.engine.model
    jobs.patch.setattr(imageio, "CONNECTIONS", 1)
    jobs.once_copying(lambda: model.daemon.expire_ticket(model.tickets[0]), at=Connection)
    assert jobs.fails().id == "transfer-ended"
    jobs.assert_nothing_open()
    result = jobs.resume()
    jobs.assert_complete(result)
    assert result.copies[0].resumed >= CHECKPOINT


def test_an_engine_that_goes_away_is_not_missed_by_the_copy(jobs: Jobs) -> None:
    """Only at its end: the disk is locked until the job is resumed."""
    jobs.once_copying(jobs.engine.stop)
    try:
        assert jobs.fails().id == "target-unreachable"
        assert "transfer-left" in jobs.warnings
    finally:
        jobs.engine.start()
    result = jobs.resume()
    jobs.assert_complete(result)
    assert result.copies[0].data > 0


def test_engine_and_daemon_that_go_away(jobs: Jobs) -> None:
    daemon = jobs.engine.model.daemon
    jobs.patch.setattr(copy_engine, "RETRY_SECONDS", (0.1,))

    def stop() -> None:
        daemon.stop()
        jobs.engine.stop()

    jobs.once_copying(stop)
    try:
        jobs.fails()
        assert "transfer-left" in jobs.warnings
    finally:
        daemon.start()
        jobs.engine.start()
    result = jobs.resume()
    jobs.assert_complete(result)
    assert result.copies[0].resumed >= CHECKPOINT


def test_cancelled_leaves_nothing(jobs: Jobs) -> None:
    cancel = Cancel()
    jobs.once_copying(cancel.cancel)
    with pytest.raises(Cancelled):
        jobs.convert(cancel=cancel)
    assert jobs.engine.model.disks == {}
    jobs.assert_nothing_open()
    jobs.assert_complete(jobs.resume())


def test_cancelled_while_the_engine_closes_the_disks(jobs: Jobs) -> None:
    """It may take its time for that: v2v does not wait for it to the end."""
    cancel, faults = Cancel(), jobs.engine.model.faults
    faults.stuck_finalize = True

    def look(what: str) -> None:
        if what.endswith("/finalize"):
            cancel.cancel()
        elif cancel.cancelled and what == "GET /imagetransfers":  # who cleans up has come
            faults.stuck_finalize = False

    faults.before_answer = look
    with pytest.raises(Cancelled):
        jobs.convert(cancel=cancel)
    assert jobs.engine.model.disks == {}
    jobs.assert_nothing_open()


def test_an_image_that_the_engine_finds_wrong(jobs: Jobs) -> None:
    """It removes the disk then: there is nothing to go on with."""
    jobs.engine.model.faults.failing_finalize = True
    assert jobs.fails().id == "target-lost"
    assert jobs.warnings == []
    jobs.discard()
    assert jobs.engine.model.disks == {}


def test_a_part_that_is_gone_is_copied_again(jobs: Jobs) -> None:
    jobs.once_copying(jobs.engine.model.pause_by_system)
    jobs.fails()
    (uuid,) = jobs.engine.model.disks
    jobs.engine.model.remove_disk(uuid)
    result = jobs.resume()
    jobs.assert_complete(result)
    assert "target-part-lost" in jobs.warnings
    assert result.copies[0].resumed == 0


# Failures after the copy --------------------------------------------------------------------------


def test_a_vm_that_is_refused(jobs: Jobs) -> None:
    jobs.engine.model.faults.refused["POST /vms"] = "[MAC Address is already in use]"
    error = jobs.fails()
    assert error.id == "target-refused"
    assert "MAC Address" in str(error)
    jobs.assert_nothing_open()
    jobs.engine.model.faults.refused.clear()
    jobs.assert_complete(jobs.resume())


def test_a_disk_that_the_engine_does_not_attach_is_attached(jobs: Jobs) -> None:
    """It makes the VM first; then it tells but its log of events what it could not attach."""
    faults = jobs.engine.model.faults
    faults.failing_attach = True

    def recover(what: str) -> None:
        faults.failing_attach = faults.failing_attach and what != "POST /vms"

    faults.before_answer = recover
    jobs.assert_complete(jobs.convert())
    (vm,) = jobs.engine.model.vms.values()
    assert vm.disks == vm.told
    assert list(vm.told.values()) == [("sata", "true")]


def test_a_vm_that_cannot_get_its_disk_is_told_and_not_started(jobs: Jobs) -> None:
    faults = jobs.engine.model.faults
    faults.failing_attach = True
    error = jobs.fails(words={"--start": ""})
    assert error.id == "target-refused"
    assert "attach" in error.message and "is in use" in error.message
    (vm,) = jobs.engine.model.vms.values()
    assert vm.status == "down"
    faults.failing_attach = False
    jobs.assert_complete(jobs.resume())
    assert (list(vm.disks), vm.status) == (list(jobs.engine.model.disks), "up")


def test_a_disk_that_is_gone_before_the_vm_gets_it(jobs: Jobs) -> None:
    model = jobs.engine.model
    model.faults.failing_attach = True
    jobs.fails()
    (uuid,) = model.disks
    model.remove_disk(uuid)
    with pytest.raises(V2VError) as caught:
        jobs.resume()
    assert caught.value.id == "target-lost"
    assert uuid in caught.value.message


def test_what_has_a_vm_is_not_discarded(jobs: Jobs) -> None:
    """A job that died between the VM's creation and its journal."""

    def refuse(what: str) -> None:
        if what == "POST /vms":
            jobs.engine.model.faults.refused["GET /vms/"] = "[too late]"

    jobs.engine.model.faults.before_answer = refuse
    assert jobs.fails().id == "target-refused"
    jobs.engine.model.faults.before_answer = None
    jobs.engine.model.faults.refused.clear()
    jobs.discard()
    assert len(jobs.engine.model.vms) == len(jobs.engine.model.disks) == 1


def test_a_job_that_was_refused_is_discarded_without_the_engine(jobs: Jobs) -> None:
    jobs.engine.model.domains[0].status = "maintenance"
    jobs.fails()
    jobs.engine.stop()
    try:
        jobs.discard()
    finally:
        jobs.engine.start()
    assert list_jobs(jobs.folder / "jobs") == []


def test_disks_of_others_are_never_removed(jobs: Jobs) -> None:
    """Not even when one got the UUID that the job had chosen."""
    uuid = "3d1c7f6e-0f0a-4c7e-9c39-0123456789ab"
    jobs.once_copying(jobs.engine.model.pause_by_system)
    jobs.fails(words={"-oo rhv-disk-uuid": uuid})
    jobs.engine.model.disks[uuid].description = "mine now"
    with pytest.raises(V2VError) as caught:
        jobs.resume()
    assert caught.value.id == "target-exists"
    jobs.discard()
    assert list(jobs.engine.model.disks) == [uuid]
    assert "target-leftover" in jobs.warnings


def test_a_disk_whose_description_was_edited_is_still_the_jobs(jobs: Jobs) -> None:
    jobs.once_copying(jobs.engine.model.pause_by_system)
    jobs.fails()
    (disk,) = jobs.engine.model.disks.values()
    disk.description = "the web server's"
    jobs.once_copying(jobs.engine.model.pause_by_system)
    with pytest.raises(V2VError) as caught:
        jobs.resume()
    assert caught.value.id == "transfer-ended"
    jobs.discard()
    assert jobs.engine.model.disks == {}


def test_a_password_that_is_wrong_by_now_is_tried_once(jobs: Jobs) -> None:
    """Engines lock accounts after a few."""
    model = jobs.engine.model
    model.faults.refused["POST /imagetransfers"] = "[later]"
    jobs.fails()
    model.faults.refused.clear()
    model.logins.clear()
    model.password, old = "another", model.password
    try:
        with pytest.raises(V2VError) as caught:
            jobs.resume()
    finally:
        model.password = old
    assert caught.value.id == "target-login"
    assert model.logins == [False]
