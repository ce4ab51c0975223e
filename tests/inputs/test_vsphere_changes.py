"""-io running=: snapshots and power, made and taken back at a simulated vCenter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.vcsim import Disk, Vcsim, Vm, vcsim
from v2v import source_changes
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.events import Event, Message, Warned
from v2v.inputs._vsphere import changes, tasks
from v2v.inputs._vsphere.changes import TOOLS_RUN, frozen, prepare, undo
from v2v.inputs._vsphere.connect import Session, connect
from v2v.inputs._vsphere.retrieve import reference
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.uri import read_place
from v2v.run import Run
from v2v.types import SourceChange


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc") / "sim") as vc:
        yield vc


@pytest.fixture
def vm(vc: Vcsim, request: pytest.FixtureRequest) -> Iterator[Vm]:
    """A VM that runs."""
    vm = vc.create_vm(f"vm-{abs(hash(request.node.name)) % 10**8}")
    vm.power(on=True)
    yield vm
    if power(vm) != "poweredOff":
        vm.power(on=False)
    vm.api.Destroy()


@contextmanager
def session(vc: Vcsim, run: Run) -> Iterator[Session]:
    place = read_place(vc.uri(), password_file=vc.password_file, cafile=vc.cafile)
    with connect(place, cancel=run.cancel) as session:
        yield session


def change(vc: Vcsim, vm: Vm, running: Running, run: Run) -> None:
    with session(vc, run) as one:
        prepare(one, vm.api._moId, vm.name, running, run, shutdown_seconds=5)


def undo_all(vc: Vcsim, run: Run) -> list[str]:
    with session(vc, run) as one:
        undone = source_changes.undo_all(run, lambda change, run: undo(one, change, run))
    return [change.kind for change in undone]


def power(vm: Vm) -> str:
    return str(vm.api.runtime.powerState)


def snapshots(vm: Vm) -> list[str]:
    info, names = vm.api.snapshot, []
    trees = list(info.rootSnapshotList) if info else []
    while trees:
        tree = trees.pop()
        names.append(tree.name)
        trees += tree.childSnapshotList
    return sorted(names)


def warnings(seen: list[Event]) -> list[str]:
    return [event.id for event in seen if isinstance(event, Warned)]


def test_snapshot_is_made_once_and_deleted_alone(vc: Vcsim, vm: Vm, run: Run) -> None:
    vm.snapshot("mine")
    change(vc, vm, Running.SNAPSHOT, run)
    name = f"v2v-{run.job_id}"
    assert frozen(run) == name
    assert snapshots(vm) == ["mine", name]
    change(vc, vm, Running.SNAPSHOT, run)  # as when the job is resumed
    vm.snapshot("later")
    assert snapshots(vm) == ["later", "mine", name]
    assert undo_all(vc, run) == ["snapshot"]
    assert snapshots(vm) == ["later", "mine"]
    assert frozen(run) is None
    assert undo_all(vc, run) == []
    assert power(vm) == "poweredOn"


def test_a_snapshot_that_somebody_deleted_is_made_again_or_is_undone(
    vc: Vcsim, vm: Vm, run: Run
) -> None:
    change(vc, vm, Running.SNAPSHOT, run)
    vm.api.RemoveAllSnapshots()
    change(vc, vm, Running.SNAPSHOT, run)
    assert snapshots(vm) == [frozen(run)]
    vm.api.RemoveAllSnapshots()
    assert undo_all(vc, run) == ["snapshot"]


def test_files_that_a_deleted_snapshot_leaves_are_told(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event]
) -> None:
    change(vc, vm, Running.SNAPSHOT, run)
    vm.set("runtime.consolidationNeeded", True)
    events_seen.clear()
    undo_all(vc, run)
    assert snapshots(vm) == []
    assert warnings(events_seen) == ["vsphere-consolidation-needed"]


def test_job_that_is_resumed_keeps_its_snapshot_although_the_vm_is_off_now(
    vc: Vcsim, vm: Vm, run: Run
) -> None:
    change(vc, vm, Running.SNAPSHOT, run)
    vm.power(on=False)
    change(vc, vm, Running.SNAPSHOT, run)
    assert snapshots(vm) == [frozen(run)]
    undo_all(vc, run)
    assert power(vm) == "poweredOff"


def test_snapshot_without_tools_is_told_to_be_as_after_a_power_cut(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event]
) -> None:
    change(vc, vm, Running.SNAPSHOT, run)
    assert warnings(events_seen) == ["snapshot-not-quiesced"]
    (tree,) = vm.api.snapshot.rootSnapshotList
    assert not tree.quiesced
    undo_all(vc, run)


def test_snapshot_with_tools_is_quiesced(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event]
) -> None:
    vm.set("guest.toolsRunningStatus", "guestToolsRunning")
    change(vc, vm, Running.SNAPSHOT, run)
    assert warnings(events_seen) == []
    (tree,) = vm.api.snapshot.rootSnapshotList
    assert tree.quiesced
    undo_all(vc, run)


@pytest.mark.parametrize("how", [Running.SHUTDOWN, Running.POWER_OFF])
def test_vm_that_was_stopped_is_started_again(vc: Vcsim, vm: Vm, run: Run, how: Running) -> None:
    change(vc, vm, how, run)
    assert power(vm) == "poweredOff"
    assert not source_changes.pending(run)[0].temporary
    change(vc, vm, how, run)
    assert len(source_changes.keys(run)) == 1
    undo_all(vc, run)
    assert power(vm) == "poweredOn"
    assert undo_all(vc, run) == []


def test_vm_that_somebody_started_already_is_left_running(vc: Vcsim, vm: Vm, run: Run) -> None:
    change(vc, vm, Running.SHUTDOWN, run)
    vm.power(on=True)
    assert undo_all(vc, run) == ["shut-down"]
    assert power(vm) == "poweredOn"


@pytest.mark.parametrize("how", [Running.SNAPSHOT, Running.SHUTDOWN, Running.POWER_OFF])
def test_nothing_is_changed_at_a_vm_that_is_off(vc: Vcsim, vm: Vm, run: Run, how: Running) -> None:
    vm.power(on=False)
    change(vc, vm, how, run)
    assert source_changes.pending(run) == ()
    assert snapshots(vm) == []


def test_a_suspended_vm_is_left_alone(vc: Vcsim, vm: Vm, run: Run) -> None:
    vm.set("runtime.powerState", "suspended")
    for how in (Running.SNAPSHOT, Running.SHUTDOWN, Running.POWER_OFF):
        with pytest.raises(SourceError) as caught:
            change(vc, vm, how, run)
        assert caught.value.id == "source-suspended"
    assert source_changes.pending(run) == ()
    vm.set("runtime.powerState", "poweredOn")


def test_no_snapshot_of_a_vm_with_a_disk_that_snapshots_leave_out(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("partly", disks=[Disk(), Disk(mode="independent_persistent")])
    vm.power(on=True)
    with pytest.raises(SourceError) as caught:
        change(vc, vm, Running.SNAPSHOT, run)
    assert caught.value.id == "vsphere-independent"
    assert source_changes.pending(run) == () and snapshots(vm) == []


def test_a_vm_that_is_gone_is_told_and_no_error(
    vc: Vcsim, run: Run, events_seen: list[Event]
) -> None:
    vm = vc.create_vm("short-lived")
    vm.power(on=True)
    change(vc, vm, Running.POWER_OFF, run)
    vm.api.Destroy()
    events_seen.clear()
    assert undo_all(vc, run) == ["power-off"]
    assert warnings(events_seen) == ["source-vm-gone"]


def test_another_vm_with_the_same_reference_is_not_started(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event]
) -> None:
    """An ESXi host that was installed anew gives its references to other VMs."""
    change(vc, vm, Running.POWER_OFF, run)
    vm.set("config.instanceUuid", "50000000-0000-4000-8000-000000000001")
    assert undo_all(vc, run) == ["power-off"]
    assert warnings(events_seen) == ["source-vm-gone"]
    assert power(vm) == "poweredOff"


def test_a_server_that_does_not_answer_leaves_the_change_for_later(
    tmp_path: Path, run: Run
) -> None:
    with vcsim(tmp_path / "short") as vc:
        vm = vc.create_vm("web")
        vm.power(on=True)
        change(vc, vm, Running.SNAPSHOT, run)
    with pytest.raises(SourceError) as caught:
        undo_all(vc, run)
    assert caught.value.id == "vsphere-unreachable"
    assert frozen(run)


def test_cancelled_before_a_change_makes_none(vc: Vcsim, vm: Vm, run: Run) -> None:
    with session(vc, run) as one:
        run.cancel.cancel()
        with pytest.raises(Cancelled):
            prepare(one, vm.api._moId, "web", Running.SNAPSHOT, run, shutdown_seconds=5)
    assert snapshots(vm) == []


def test_what_the_server_is_asked_for_is_waited_for_although_the_job_is_cancelled(
    vc: Vcsim, run: Run
) -> None:
    """Else it might be made just after `undo` has found nothing."""
    answers = []

    def action() -> None:
        run.cancel.cancel()
        answers.append(one.content.about.apiType)

    with session(vc, run) as one:
        one.call(action, changes=True)
        assert answers == ["VirtualCenter"]
        with pytest.raises(Cancelled):
            one.call(action)


def test_what_happens_while_we_stand_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = 0.0, []
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: now))

    def done() -> bool:
        nonlocal now
        seen.append(now)
        now += 100.0  # a process may be stopped
        return len(seen) > 1

    assert tasks.wait_until(done, 10.0, Cancel())


@pytest.mark.parametrize(
    "told", [{"guestState": "shuttingDown"}, {"toolsRunningStatus": TOOLS_RUN}]
)
def test_a_guest_that_is_shutting_down_is_waited_for_before_it_is_started(
    vc: Vcsim, vm: Vm, run: Run, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job was killed after it had told the guest; which may not show it yet."""
    monkeypatch.setattr(changes, "HEARD_SECONDS", 120.0)  # however slow the machine is
    change(vc, vm, Running.SHUTDOWN, run)
    vm.power(on=True)
    for name, value in told.items():
        vm.set(f"guest.{name}", value)
    with session(vc, run) as one:
        asked = 0
        ask = one.call

        def call(action, **options):
            nonlocal asked
            asked += 1
            if asked == 8:
                vm.power(on=False)
            return ask(action, **options)

        one.call = call  # type: ignore[method-assign]
        source_changes.undo_all(run, lambda change, run: undo(one, change, run))
    assert asked > 8
    assert power(vm) == "poweredOn"


def test_the_fault_of_a_task_is_an_error_with_its_cause(vc: Vcsim, vm: Vm, run: Run) -> None:
    from pyVmomi import vim

    from v2v.inputs._vsphere.changes import _do

    with session(vc, run) as one:
        theirs = one.call(lambda: reference(one.content, "VirtualMachine", vm.api._moId))
        with pytest.raises(SourceError) as caught:
            _do(one, theirs.PowerOnVM_Task, run)  # it runs
    assert caught.value.id == "vsphere-failed"
    assert isinstance(caught.value.__cause__, vim.fault.InvalidPowerState)


# What tasks of the simulator never are: slow, or without success


@pytest.fixture
def rewriting(vc: Vcsim) -> Iterator[None]:
    before = vc.front.rewrite
    yield
    vc.front.rewrite = before


def test_undo_waits_for_a_snapshot_that_is_still_being_made(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event], rewriting: None
) -> None:
    """A job was killed after it had asked for the snapshot, and before it was there."""
    name = f"v2v-{run.job_id}"
    change = SourceChange(kind="snapshot", what="a snapshot", target=vm.api._moId, name=name)

    def killed() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        source_changes.make(run, change, killed)
    other = vm.api.CreateSnapshot("other", "", memory=False, quiesce=False)._moId.encode()
    asked = 0

    def rewrite(request: bytes, answer: bytes) -> bytes:
        nonlocal asked
        if b">recentTask</prop>" in request:
            task = b'<ManagedObjectReference type="Task">' + other + b"</ManagedObjectReference>"
            return answer.replace(b"</returnval>", task + b"</returnval>")
        if b">" + other + b"<" in request:
            asked += 1
            if asked == 3:
                vm.snapshot(name)
            return answer if asked > 3 else answer.replace(b">success<", b">running<")
        return answer

    vc.front.rewrite = rewrite
    assert undo_all(vc, run) == ["snapshot"]
    assert asked > 3
    assert snapshots(vm) == ["other"]
    assert [one for one in events_seen if isinstance(one, Message) and "Waiting" in one.text]


FAULT = b"""<propSet><name>info.error</name>
<val xmlns:x="http://www.w3.org/2001/XMLSchema-instance" x:type="LocalizedMethodFault">
<fault x:type="%s"></fault><localizedMessage>it could not</localizedMessage></val></propSet>"""


def failing_first(vc: Vcsim, vm: Vm, fault: bytes) -> list[int]:
    """The first task that makes a snapshot ends with a fault, and leaves none."""
    failed: list[int] = []

    def rewrite(request: bytes, answer: bytes) -> bytes:
        if b">info.error<" not in request or failed:
            return answer
        failed.append(1)
        vm.api.RemoveAllSnapshots()
        error = answer.replace(b">success<", b">error<")
        return error.replace(b"</objects>", FAULT % fault + b"</objects>")

    vc.front.rewrite = rewrite
    return failed


def test_filesystems_that_cannot_be_quiesced_are_kept_as_after_a_power_cut(
    vc: Vcsim, vm: Vm, run: Run, events_seen: list[Event], rewriting: None
) -> None:
    vm.set("guest.toolsRunningStatus", "guestToolsRunning")
    failed = failing_first(vc, vm, b"FilesystemQuiesceFault")
    change(vc, vm, Running.SNAPSHOT, run)
    assert failed and warnings(events_seen) == ["snapshot-not-quiesced"]
    (tree,) = vm.api.snapshot.rootSnapshotList
    assert tree.name == frozen(run) and not tree.quiesced
    undo_all(vc, run)


def test_a_snapshot_waits_for_another_task_of_the_vm(
    vc: Vcsim, vm: Vm, run: Run, rewriting: None
) -> None:
    failed = failing_first(vc, vm, b"TaskInProgress")
    change(vc, vm, Running.SNAPSHOT, run)
    assert failed and snapshots(vm) == [frozen(run)]
    undo_all(vc, run)


def test_a_snapshot_that_cannot_be_made_is_one_error(
    vc: Vcsim, vm: Vm, run: Run, rewriting: None
) -> None:
    failing_first(vc, vm, b"TooManySnapshotLevels")
    with pytest.raises(SourceError, match="it could not") as caught:
        change(vc, vm, Running.SNAPSHOT, run)
    assert caught.value.id == "vsphere-failed"
    assert len(source_changes.pending(run)) == 1  # it may be there, for all that is known
    undo_all(vc, run)
    assert snapshots(vm) == []


REFUSED = {
    "vsphere-no-tools": b'<ToolsUnavailableFault xmlns="urn:vim25" x:type="ToolsUnavailable">'
    b"</ToolsUnavailableFault>",
    "vsphere-permission": b'<NoPermissionFault xmlns="urn:vim25" x:type="NoPermission">'
    b'<object type="VirtualMachine">vm-1</object>'
    b"<privilegeId>VirtualMachine.Interact.PowerOff</privilegeId></NoPermissionFault>",
}
ENVELOPE = b"""<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:x="http://www.w3.org/2001/XMLSchema-instance"><s:Body><s:Fault>
<faultcode>ServerFaultCode</faultcode><faultstring>no</faultstring><detail>%s</detail>
</s:Fault></s:Body></s:Envelope>"""


@pytest.mark.parametrize("id", REFUSED)
def test_a_vm_that_v2v_could_not_shut_down_is_not_started_by_undo(
    vc: Vcsim, vm: Vm, run: Run, id: str, rewriting: None
) -> None:
    """Somebody shuts it down by hand then, as the error says."""
    fault = ENVELOPE % REFUSED[id]
    vc.front.rewrite = lambda asked, told: fault if b"<ShutdownGuest" in asked else told
    with pytest.raises(SourceError) as caught:
        change(vc, vm, Running.SHUTDOWN, run)
    assert caught.value.id == id
    assert power(vm) == "poweredOff"
    assert undo_all(vc, run) == []
    assert power(vm) == "poweredOff"
