"""What goes wrong once the disks are copied: nothing is lost, and `finalize` goes on."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import replace

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.proxmox import Storage
from tests.fakes.proxmox.state import Task
from tests.outputs.proxmox.staged import Staged
from v2v.errors import Cancelled, TargetError
from v2v.events import CopyProgress, StepStarted, Warned
from v2v.outputs._proxmox import api, machine, uploads
from v2v.types import MiB


def error_of(staged: Staged, output) -> TargetError:
    with pytest.raises(TargetError) as error:
        staged.finalize(output)
    assert staged.kept()
    return error.value


def test_the_vm_and_its_disks_arrive(staged, events_seen) -> None:
    ref = staged.finalize(staged.copied())
    staged.check_arrived(ref)
    assert ref.name == "web"
    assert ref.start_hint == "qm start 100"
    config = staged.host.server.vms[100]
    assert config["description"].endswith(f"v2v job {staged.run.job_id}")
    sent = [event for event in events_seen if isinstance(event, CopyProgress)]
    assert {(event.disk, event.phase) for event in sent} == {(0, "send"), (1, "send")}
    steps = [event.step for event in events_seen if isinstance(event, StepStarted)]
    assert steps == ["send:0", "send:1", "import"]


def test_large_images_are_streamed(staged) -> None:
    """From 10 MiB on they are sent in another way by the client library."""
    staged.contents = [os.urandom(11 * MiB), staged.contents[1]]
    staged.check_arrived(staged.finalize(staged.copied()))


def test_storages_by_disk_and_another_one_for_imports(staged, tmp_path) -> None:
    server = staged.host.server
    server.storages["nas"] = Storage(tmp_path / "host" / "nas", content="images")
    server.storages["drop"] = Storage(tmp_path / "host" / "drop", content="import")
    server.storages["local"].content = "images"
    disks = (staged.source.disks[0], replace(staged.source.disks[1], target_storage="nas"))
    staged.source = replace(staged.source, disks=disks)
    ref = staged.finalize(staged.copied())
    staged.check_arrived(ref)
    assert [disk.location.partition(":")[0] for disk in ref.disks] == ["local", "nas"]


def test_a_token_is_enough(staged) -> None:
    server = staged.host.server
    server.tokens["mover@pve!v2v"] = "t0ken"
    staged.host.password.write_text("t0ken")
    address = server.address.replace("root@pam", "mover@pve")
    output = staged.copied(**{"-oc": address, "-oo token-id": "v2v"})
    staged.check_arrived(staged.finalize(output))


def test_a_node_other_than_the_one_that_answers(staged) -> None:
    """Its task of an upload is the answering node's."""
    staged.host.server.nodes["pve2"] = "online"
    ref = staged.finalize(staged.copied(**{"-oo node": "pve2"}))
    assert ref.metadata == "100 on pve2"


def test_the_chosen_number(staged) -> None:
    ref = staged.finalize(staged.copied(**{"-oo vmid": "4711"}))
    assert list(staged.host.server.vms) == [4711]
    staged.check_arrived(ref)


def test_a_free_number_that_somebody_takes(staged) -> None:
    staged.host.server.faults.taken_ids = 2
    ref = staged.finalize(staged.copied())
    assert ref.metadata == "102 on pve1"
    assert staged.host.server.vms[100]["name"] == "somebody"


def test_the_chosen_number_is_taken_meanwhile(staged) -> None:
    output = staged.copied(**{"-oo vmid": "100"})
    staged.host.server.faults.taken_ids = 1
    assert error_of(staged, output).id == "target-exists"
    output.discard(staged.disks, staged.run)
    assert staged.host.server.vms[100]["name"] == "somebody"
    staged.check_clear()


def test_an_upload_that_breaks_off_is_sent_again(staged, events_seen) -> None:
    staged.host.server.faults.cut_uploads = [1 * MiB, 0]
    staged.check_arrived(staged.finalize(staged.copied()))
    warned = [event.id for event in events_seen if isinstance(event, Warned)]
    assert warned == ["target-send-again"] * 2


def test_an_upload_that_always_breaks_off(staged) -> None:
    staged.host.server.faults.cut_uploads = [0] * 4
    output = staged.copied()
    error = error_of(staged, output)
    assert error.id == "target-unreachable"
    assert "/var/tmp" in (error.hint or "")
    staged.check_arrived(staged.finalize(staged.host.output(**{"-of": "raw"})))


def test_an_upload_whose_answer_is_lost(staged) -> None:
    staged.host.server.faults.lost_answers = 1
    staged.check_arrived(staged.finalize(staged.copied()))


def test_an_image_that_is_damaged_on_the_way(staged) -> None:
    staged.host.server.faults.corrupt = True
    output = staged.copied()
    error = error_of(staged, output)
    assert error.id == "target-task"
    assert "checksum mismatch" in error.message
    staged.host.server.faults.corrupt = False
    staged.check_arrived(staged.finalize(output))


def test_a_failed_import_tells_the_last_words_and_leaves_nothing(staged) -> None:
    server = staged.host.server
    server.faults.import_error = "No space left on device"
    output = staged.copied()
    error = error_of(staged, output)
    assert error.id == "target-task"
    assert "No space left on device" in error.message
    assert server.vms == {}
    server.faults.import_error = ""
    before = len([line for line in server.requests if line.endswith("/upload")])
    staged.check_arrived(staged.finalize(output))
    assert len([line for line in server.requests if line.endswith("/upload")]) == before


def test_a_failed_import_is_discarded(staged) -> None:
    staged.host.server.faults.import_error = "I/O error"
    output = staged.copied()
    error_of(staged, output)
    for _ in range(2):
        output.discard(staged.disks, staged.run)
        staged.check_clear()
        assert staged.host.server.vms == {}


def test_a_storage_that_is_gone_does_not_keep_a_job_from_being_discarded(staged) -> None:
    server = staged.host.server
    server.faults.import_error = "I/O error"
    output = staged.copied()
    error_of(staged, output)
    del server.storages["local"]
    output.discard(staged.disks, staged.run)
    assert not staged.kept_files()


def test_an_upload_that_somebody_removed_is_sent_again(staged) -> None:
    server = staged.host.server
    server.faults.import_error = "I/O error"
    output = staged.copied()
    error_of(staged, output)
    next(server.folder.glob("*/import/*")).unlink()
    server.faults.import_error = ""
    staged.check_arrived(staged.finalize(output))


@pytest.mark.parametrize("fault", ["silent_polls", "gateway_polls"])
def test_a_server_that_goes_away_during_a_task_is_waited_for(staged, fault: str) -> None:
    setattr(staged.host.server.faults, fault, 3)
    staged.check_arrived(staged.finalize(staged.copied()))


def test_a_server_that_stays_away(staged, monkeypatch) -> None:
    from v2v.outputs._proxmox import tasks

    monkeypatch.setattr(tasks, "PATIENCE", 0.05)
    staged.host.server.faults.silent_polls = 1000
    assert error_of(staged, staged.copied()).id == "target-unreachable"
    staged.host.server.faults.silent_polls = 0
    staged.check_arrived(staged.finalize(staged.host.output(**{"-of": "raw"})))


@pytest.mark.parametrize("upid", ["UPID:pve1/../..:1:2:3:qmcreate:100:root@pam:", "", "x" * 900])
def test_a_task_that_is_none(staged, upid: str) -> None:
    answer = json.dumps({"data": upid}).encode()
    staged.host.server.faults.answers["nodes/pve1/qemu"] = answer
    output = staged.copied()
    assert error_of(staged, output).id == "target-answer"
    staged.host.server.faults.answers.clear()
    staged.check_arrived(staged.finalize(output))


def test_what_only_root_may_set_is_left_out_and_told(staged, events_seen) -> None:
    server = staged.host.server
    server.root_only.add("rng0")
    server.tokens["root@pam!v2v"] = "t0ken"  # which is not root to the server
    staged.host.password.write_text("root@pam!v2v=t0ken")
    staged.source = replace(staged.source, genid="11111111-2222-3333-4444-555555555555")
    staged.check_arrived(staged.finalize(staged.copied()))
    assert list(server.vms) == [100]
    assert not {"rng0", "vmgenid"} & set(server.vms[100])
    told = [event.text for event in events_seen if isinstance(event, Warned)]
    assert len(told) == 2
    assert any("random number generator" in text for text in told)
    assert any("generation id" in text for text in told)


def test_a_ticket_is_renewed(staged, monkeypatch) -> None:
    """It is good for two hours; a job may take longer."""
    from v2v.outputs._proxmox import session

    output = staged.copied()
    monkeypatch.setattr(session, "RENEW_SECONDS", -1.0)
    before = len(staged.host.server.tickets)
    staged.check_arrived(staged.finalize(output))
    assert len(staged.host.server.tickets) > before + 5


def test_an_upload_begins_with_a_new_ticket(staged) -> None:
    """The server looks at it again when all has arrived."""
    server = staged.host.server
    server.faults.upload_seconds = 7100.0
    staged.check_arrived(staged.finalize(staged.copied()))
    before = zip(server.requests, server.requests[1:], strict=False)
    uploads = [first for first, second in before if second.endswith("/upload")]
    assert uploads == ["POST access/ticket"] * 2


def test_an_upload_that_outlasts_a_ticket_is_resumed_with_a_token(staged, monkeypatch) -> None:
    server, output = staged.host.server, staged.copied()
    server.faults.upload_seconds = 7300.0
    monkeypatch.setattr(uploads, "TICKET_SECONDS", 0.0)
    error = error_of(staged, output)
    assert error.id == "target-login"
    assert "two hours" in error.message
    assert "USER@REALM!NAME=SECRET" in (error.hint or "")
    assert not list(server.folder.glob("pveupload-*"))
    server.tokens["mover@pve!v2v"] = "t0ken"
    staged.host.password.write_text("mover@pve!v2v=t0ken\n")
    staged.check_arrived(staged.finalize(output))


def test_cookies_of_somebody_on_the_way(staged) -> None:
    """Who shares out connections among nodes marks them so."""
    staged.host.server.faults.cookie = "SERVER=node2; Path=/"
    staged.check_arrived(staged.finalize(staged.copied()))


def test_the_vm_is_started_once(staged) -> None:
    output = staged.copied(**{"--start": ""})
    ref = staged.finalize(output)
    assert staged.host.server.running == {100}
    assert staged.finalize(output) == ref
    assert staged.host.server.requests.count("POST nodes/pve1/qemu/100/status/start") == 1


def test_a_vm_that_does_not_start_is_complete(staged) -> None:
    server = staged.host.server
    server.faults.start_error = "KVM virtualisation configured, but not available"
    output = staged.copied(**{"--start": ""})
    with pytest.raises(TargetError) as error:
        staged.finalize(output)
    assert error.value.id == "target-start"
    assert "KVM virtualisation" in error.value.message
    output.discard(staged.disks, staged.run)
    assert list(server.vms) == [100]
    server.faults.start_error = ""
    staged.check_arrived(staged.finalize(output))
    assert server.running == {100}


def test_images_that_cannot_be_removed_are_told(staged, events_seen, monkeypatch) -> None:
    server = staged.host.server
    server.tokens["mover@pve!v2v"] = "t0ken"
    staged.host.password.write_text("t0ken")
    address = server.address.replace("root@pam", "mover@pve")
    output = staged.copied(**{"-oc": address, "-oo token-id": "v2v"})
    server.faults.missing.add(("/storage/local", "Datastore.Allocate"))
    ref = staged.finalize(output)
    assert [e.id for e in events_seen if isinstance(e, Warned)] == ["uploads-left"]
    server.faults.missing.clear()
    output.discard(staged.disks, staged.run)
    staged.check_arrived(ref)


def test_cancel_during_an_upload(staged) -> None:
    server = staged.host.server
    output = staged.copied()
    server.faults.upload.close()
    stopper = threading.Thread(
        target=lambda: (server.faults.upload.reached.wait(30), staged.run.cancel.cancel())
    )
    stopper.start()
    with pytest.raises(Cancelled):
        staged.finalize(output)
    stopper.join()
    assert staged.kept()


def test_cancel_when_all_is_sent(staged, monkeypatch) -> None:
    """The server has not answered yet, and will keep what it got."""
    monkeypatch.setattr(api, "LEAVE_SECONDS", 60.0)
    server, output, returned = staged.host.server, staged.copied(), threading.Event()
    hold = server.faults.received
    hold.close()

    def stop() -> None:
        hold.reached.wait(30)
        staged.run.cancel.cancel()
        if not returned.wait(0.3):
            hold.open()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Cancelled):
        staged.finalize(output)
    returned.set()
    stopper.join()
    output.discard(staged.disks, staged.run)
    hold.open()
    server.wait_idle(30)
    staged.check_clear()


def test_secrets_are_nowhere(staged, events_seen, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("proxmoxer", "requests", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    server = staged.host.server
    server.faults.cut_uploads = [0]
    server.faults.import_error = "I/O error"
    error = error_of(staged, staged.copied())
    told = staged.texts(events_seen) + caplog.text + f"{error}{error.hint}"
    secrets = [server.passwords["root@pam"], *server.tickets, "csrf-root"]
    assert not [secret for secret in secrets if secret in told]


def test_on_the_node_itself_nothing_is_sent(staged, tmp_path, monkeypatch) -> None:
    if os.geteuid():
        pytest.skip("only root may name files to the server")
    here = tmp_path / "node"
    here.symlink_to("nodes/pve1")
    monkeypatch.setattr(uploads, "LOCAL_NODE", here)
    output = staged.host.output()
    output.check_source(staged.source, staged.run)
    disks = output.create_disks(staged.source, [MiB, MiB], staged.run)
    ref = output.finalize(staged.source, GUEST, disks, staged.run)
    assert not any("upload" in line for line in staged.host.server.requests)
    assert [disk.format for disk in ref.disks] == ["raw", "raw"]
    staged.check_clear()


def test_a_task_that_does_not_end(staged) -> None:
    from v2v.outputs._proxmox import api, tasks

    server = staged.host.server
    server.faults.copy.close()
    upid = server.start("imgcopy", "", "root@pam", lambda task: server.faults.copy.pass_by())
    opened = api.open_api(staged.host.output().options, staged.run)
    with pytest.raises(TargetError) as error:
        tasks.wait_for(opened, upid, "copy", seconds=0.1)
    assert error.value.id == "target-timeout"


@pytest.mark.parametrize("node", ["pve1", "pve2"])
def test_a_copy_that_the_server_still_makes_is_ended_and_others_are_not(staged, node) -> None:
    """Of an upload whose answer never came. The node that answers copies, whichever has the
    storage; the same user may send something else meanwhile."""
    server = staged.host.server
    server.nodes["pve2"] = "online"
    server.faults.lost_answers = 1
    server.faults.copy.close()
    other = server.start("imgcopy", "", "root@pam", _copy_of_an_iso)
    output = staged.copied(**{"-oo node": node})
    stopper = threading.Thread(
        target=lambda: (server.faults.copy.reached.wait(30), staged.run.cancel.cancel())
    )
    stopper.start()
    with pytest.raises(Cancelled):
        staged.finalize(output)
    stopper.join()
    output.discard(staged.disks, staged.run)
    server.faults.copy.open()
    assert {task.kind: task.status for task in server.tasks.values() if task.upid == other} == {
        "imgcopy": "running"
    }
    server.tasks[other].stop.set()
    staged.check_clear()


def _copy_of_an_iso(task: Task) -> None:
    task.log.append("target file: /var/lib/vz/template/iso/debian.iso")
    task.stop.wait(60)


def test_a_vm_that_another_job_makes_is_let_alone(staged) -> None:
    """Both were told that its number is free."""
    server = staged.host.server
    output = staged.copied()
    staged.run.journal.put(machine.VM, machine.Machine("pve1", 100))  # and killed before it asked
    server.vms[100] = {"name": "theirs", "description": "v2v job other"}

    def work(task: Task) -> None:
        """It goes on until it was looked at."""
        while not any(line.endswith(f"{task.upid}/status") for line in server.requests):
            if task.stop.wait(0.01):
                return

    task = server.start("qmcreate", "100", "root@pam", work)
    output.discard(staged.disks, staged.run)
    assert server.tasks[task].status == "stopped"  # it was waited for
    assert not server.tasks[task].stop.is_set()
    assert list(server.vms) == [100]


def test_a_vm_whose_task_never_answered_is_ended(staged) -> None:
    """Killed between the request and its answer: the task's log names the job's images."""
    server, output = staged.host.server, staged.copied()
    server.faults.imports.close()
    server.faults.lost_creates = 1
    assert error_of(staged, output).id == "target-unreachable"
    assert not staged.run.journal.get(machine.VM, machine.Machine).upid
    assert server.faults.imports.reached.wait(30)
    output.discard(staged.disks, staged.run)  # does not wait for what is held
    assert server.vms == {}
    staged.check_clear()


@pytest.mark.parametrize("what", ["finalize", "discard"])
def test_a_vm_that_a_node_left_behind_is_told(staged, events_seen, what: str) -> None:
    """It went down while it made the VM: that stays locked, and nothing in it is ours for sure."""
    server, output = staged.host.server, staged.copied()
    upid = server.start("qmcreate", "100", "root@pam", lambda task: None)
    staged.run.journal.put(machine.VM, machine.Machine("pve1", 100, upid))
    server.vms[100] = {"lock": "create"}
    if what == "finalize":
        staged.check_arrived(staged.finalize(output))
    else:
        output.discard(staged.disks, staged.run)
    assert server.vms[100] == {"lock": "create"}
    warned = [event for event in events_seen if isinstance(event, Warned)]
    assert [event.id for event in warned] == ["vm-left"]
    assert "qm destroy 100" in warned[0].hint


def test_words_of_the_source_that_are_no_text(staged) -> None:
    staged.source = replace(staged.source, description="\udcff\x1b[2J hello")
    staged.check_arrived(staged.finalize(staged.copied()))
    assert "hello" in staged.host.server.vms[100]["description"]
