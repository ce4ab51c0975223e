"""What `-io running=` changes at a VM that runs, and how that is taken back.

`prepare` and `undo` are what the contract asks of the input; `frozen` names the snapshot whose
disks are to be read. Both look at what there is before they do anything: see v2v.source_changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from v2v import source_changes
from v2v.errors import SourceError, V2VError
from v2v.inputs._vsphere import errors, findings
from v2v.inputs._vsphere.connect import Session
from v2v.inputs._vsphere.drives import read_drives
from v2v.inputs._vsphere.retrieve import reference
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.tasks import TASK_SECONDS, run_task, settle, wait_until
from v2v.run import Run
from v2v.texts import clean, clean_name
from v2v.types import SourceChange

POWER_SECONDS = 600.0  # for a task that turns a VM on or off; it may wait for somebody's answer
OFF_SECONDS = 300.0  # for a guest that is shutting down to be off
HEARD_SECONDS = 10.0  # for VMware Tools to do what they are told
SHUTTING_DOWN = "shuttingDown"  # GuestInfo.guestState
TOOLS_RUN = "guestToolsRunning"  # GuestInfo.toolsRunningStatus
TOLD = "made by v2v to read the disks; `v2v undo` deletes it"  # a snapshot's description

SNAPSHOT, SHUT_DOWN, POWER_OFF = "snapshot", "shut-down", "power-off"  # SourceChange.kind


def frozen(run: Run) -> str | None:
    """The name of the snapshot that this job made for itself, while there is one."""
    made = [one.name for one in source_changes.pending(run) if one.kind == SNAPSHOT]
    return made[0] if made else None


def prepare(
    session: Session, id: str, name: str, running: Running, run: Run, *, shutdown_seconds: float
) -> None:
    """Change the VM `id` (its reference) as `running` says, if it runs.

    SourceError `source-suspended`, `vsphere-no-tools`, `vsphere-shutdown-timeout`, or what
    vSphere says.
    """
    vm, name = reference(session.content, "VirtualMachine", id), clean_name(name) or id
    settle(session, vm, run)
    power = _power(session, vm)
    if power == "suspended" and not frozen(run):
        raise _suspended(name)
    if running is Running.SNAPSHOT and (power == "poweredOn" or frozen(run)):
        _take_snapshot(session, vm, name, run)
    elif power == "poweredOn":
        _stop(session, vm, name, running, run, shutdown_seconds)


def undo(session: Session, change: SourceChange, run: Run) -> None:
    """Take one back. A VM that is not there any more is told of, and is no error."""
    vm = reference(session.content, "VirtualMachine", change.target)
    try:
        if change.uuid and _uuid(session, vm) != change.uuid:
            _warn_of_gone(session, change, run)
            return
        settle(session, vm, run)
        if change.kind == SNAPSHOT:
            _delete_snapshots(session, vm, change.name, run)
        else:
            _start(session, vm, run, was_told=change.kind == SHUT_DOWN)
    except SourceError as exc:
        if not _is_gone(vm, exc.__cause__):
            raise
        _warn_of_gone(session, change, run)


def _uuid(session: Session, vm: Any) -> str:
    """An ESXi host numbers its VMs from 1 again when it is installed anew."""
    return session.call(lambda: getattr(vm.config, "instanceUuid", None)) or ""


def _warn_of_gone(session: Session, change: SourceChange, run: Run) -> None:
    run.warn(
        f"{change.what}: {session.place.shown} has no VM {clean(change.target)} any more, or "
        "another one",
        id="source-vm-gone",
        hint="if it was added again since, look there for what the job changed",
    )


def _is_gone(vm: Any, fault: BaseException | None) -> bool:
    from pyVmomi import vmodl

    missing = isinstance(fault, vmodl.fault.ManagedObjectNotFound)
    return missing and getattr(getattr(fault, "obj", None), "_moId", None) == vm._moId


# Snapshots ----------------------------------------------------------------------------------------


def _take_snapshot(session: Session, vm: Any, name: str, run: Run) -> None:
    _check_all_frozen(session, vm, name)
    label = frozen(run) or f"v2v-{run.job_id}"
    change = SourceChange(
        kind=SNAPSHOT, what=f"snapshot {label} of {name}", target=vm._moId, name=label
    )

    def action() -> None:
        if not _snapshots(session, vm, label):
            _create(session, vm, name, label, run)

    source_changes.make(run, change, action)


def _check_all_frozen(session: Session, vm: Any, name: str) -> None:
    drives = read_drives(session.call(lambda: vm.config.hardware.device))
    for finding in findings.independent(drives):
        raise SourceError(f"{name} runs, and {finding.text}", id=finding.id, hint=finding.hint)


def _create(session: Session, vm: Any, name: str, label: str, run: Run) -> None:
    """Without the memory. With filesystems in order, where VMware Tools can see to that; else as
    if the power had been cut, which filesystems and databases of today survive."""
    from pyVmomi import vim

    def create(*, quiesce: bool) -> None:
        _do(session, lambda: vm.CreateSnapshot_Task(label, TOLD, False, quiesce), run)

    try:
        if _tools_run(session, vm):
            create(quiesce=True)
            return
    except SourceError as exc:
        quiescing = (vim.fault.SnapshotFault, vim.fault.ToolsUnavailable)
        if not isinstance(exc.__cause__, quiescing) or _snapshots(session, vm, label):
            raise
    run.warn(
        f"the snapshot of {name} is as if its power had been cut: VMware Tools cannot bring its "
        "filesystems in order",
        id="snapshot-not-quiesced",
        hint="-io running=shutdown copies it in order",
    )
    create(quiesce=False)


def _tools_run(session: Session, vm: Any) -> bool:
    return session.call(lambda: getattr(vm.guest, "toolsRunningStatus", None)) == TOOLS_RUN


def _delete_snapshots(session: Session, vm: Any, label: str, run: Run) -> None:
    """Those of that name alone: what was made above them stays."""
    there = _snapshots(session, vm, label)
    for one in there:
        _delete(session, vm, label, one, run)
    if there and session.call(lambda: vm.runtime.consolidationNeeded):
        run.warn(
            f"{label} is deleted, but the VM still writes to files of it, or of another snapshot",
            id="vsphere-consolidation-needed",
            hint="in the vSphere Client: Snapshots, Consolidate; somebody may have read them just "
            "then, such as a backup",
        )


def _delete(session: Session, vm: Any, label: str, snapshot: Any, run: Run) -> None:
    try:
        _do(session, lambda: snapshot.RemoveSnapshot_Task(False), run)
    except SourceError:
        if snapshot in _snapshots(session, vm, label):  # else somebody else has deleted it
            raise


def _snapshots(session: Session, vm: Any, label: str) -> list[Any]:
    def found() -> list[Any]:
        info = vm.snapshot
        trees, found = list(info.rootSnapshotList) if info else [], []
        while trees:
            tree = trees.pop()
            trees += tree.childSnapshotList or ()
            if tree.name == label:
                found.append(tree.snapshot)
        return found

    return session.call(found)


# Power --------------------------------------------------------------------------------------------


def _power(session: Session, vm: Any) -> str:
    return session.call(lambda: str(vm.runtime.powerState))


def _stop(
    session: Session, vm: Any, name: str, running: Running, run: Run, shutdown_seconds: float
) -> None:
    """It stays off when the job is done, so that there are never two of it."""

    def action() -> None:
        if kind == SHUT_DOWN:
            _shut_down(session, vm, name, shutdown_seconds, run)
        else:
            _set_power(session, vm, run, on=False)

    kind, what = (
        (SHUT_DOWN, "shutdown") if running is Running.SHUTDOWN else (POWER_OFF, "power-off")
    )
    change = SourceChange(
        kind=kind,
        what=f"{what} of {name}",
        target=vm._moId,
        uuid=_uuid(session, vm),
        temporary=False,
    )
    source_changes.make(run, change, action, refused=_is_refused)


def _is_refused(error: V2VError) -> bool:
    """Before anything was done: whoever shuts it down then does not want it to be started."""
    privilege = getattr(error.__cause__, "privilegeId", None) or ""
    return error.id == "vsphere-no-tools" or privilege.startswith("VirtualMachine.Interact.")


def _shut_down(session: Session, vm: Any, name: str, seconds: float, run: Run) -> None:
    from pyVmomi import vim

    try:
        session.call(vm.ShutdownGuest, changes=True)
    except SourceError as exc:
        if isinstance(exc.__cause__, vim.fault.ToolsUnavailable):
            raise _no_tools(name) from exc
        if not isinstance(exc.__cause__, vim.fault.InvalidPowerState):  # it is off already
            raise
    if not wait_until(lambda: _power(session, vm) == "poweredOff", seconds, run.cancel):
        raise _does_not_end(name, seconds)


def _start(session: Session, vm: Any, run: Run, *, was_told: bool) -> None:
    """A guest that is about to shut down is waited for: it would be off a moment later.

    was_told: to shut down, perhaps this very moment.
    """

    def shuts_down() -> bool:
        return session.call(lambda: getattr(vm.guest, "guestState", None)) == SHUTTING_DOWN

    def is_off() -> bool:
        return _power(session, vm) == "poweredOff"

    if was_told and _tools_run(session, vm):
        wait_until(lambda: shuts_down() or is_off(), HEARD_SECONDS, run.cancel)
    wait_until(lambda: not shuts_down() or is_off(), OFF_SECONDS, run.cancel)
    if _power(session, vm) == "poweredOff":
        _set_power(session, vm, run, on=True)


def _set_power(session: Session, vm: Any, run: Run, *, on: bool) -> None:
    from pyVmomi import vim

    wanted = "poweredOn" if on else "poweredOff"
    try:
        begin = vm.PowerOnVM_Task if on else vm.PowerOffVM_Task
        _do(session, begin, run, seconds=POWER_SECONDS)
    except SourceError as exc:
        if not isinstance(exc.__cause__, vim.fault.InvalidPowerState):
            raise
        if _power(session, vm) != wanted:
            raise


def _do(
    session: Session, begin: Callable[[], Any], run: Run, *, seconds: float = TASK_SECONDS
) -> None:
    """A task to its end; its fault as an error of ours, whose cause it is."""
    from pyVmomi import vmodl

    try:
        run_task(session, begin, run.cancel, seconds=seconds)
    except vmodl.MethodFault as fault:
        raise errors.wrapped(fault, session.place) from fault


# Errors -------------------------------------------------------------------------------------------


def _suspended(name: str) -> SourceError:
    return SourceError(
        f"{name} is suspended: a part of its disks is in the memory that was kept",
        id="source-suspended",
        hint="resume it in vSphere, and shut it down or use -io running= then",
    )


def _no_tools(name: str) -> SourceError:
    return SourceError(
        f"{name} cannot be shut down from outside: VMware Tools do not run in it",
        id="vsphere-no-tools",
        hint="shut it down from within; or -io running=power-off cuts its power",
    )


def _does_not_end(name: str, seconds: float) -> SourceError:
    return SourceError(
        f"{name} was told to shut down, and still runs after {seconds:.0f} s",
        id="vsphere-shutdown-timeout",
        hint="look at its console; give it longer with -io shutdown-timeout=SECONDS, or "
        "-io running=power-off cuts its power; then `v2v resume` goes on",
    )
