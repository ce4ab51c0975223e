"""Tasks of vSphere: what is done at the server, while whoever asked for it only waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from v2v import events
from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.inputs._vsphere.connect import Session
from v2v.inputs._vsphere.retrieve import retrieve_these
from v2v.run import Run
from v2v.texts import clean, time_text

TASK_SECONDS = 24 * 3600.0  # merging a snapshot of a busy VM takes hours; the server says it works
BUSY_SECONDS = 300.0  # for another task of the same VM to end, such as a backup's snapshot
FIRST_LOOK, LOOKS = 0.05, 2.0  # seconds from one look to the next, which grow
RUNNING = ("queued", "running")
INFO = ("info.state", "info.error", "info.descriptionId")

# Parts of what tasks are called (TaskInfo.descriptionId) that change what `undo` looks at:
# VirtualMachine.createSnapshot, vm.Snapshot.remove, VirtualMachine.powerOn.
CHANGES = ("snapshot", "power")


def run_task(
    session: Session, begin: Callable[[], Any], cancel: Cancel, *, seconds: float = TASK_SECONDS
) -> None:
    """Let `begin` start a task, and wait for its end. Raises its fault, a vmodl.MethodFault; begins
    again while another task of the VM is in the way.

    Cancelled leaves the task to the server: `settle` waits for it, before it is undone.
    """
    from pyVmomi import vim

    def begun() -> Any:
        try:
            return begin()
        except vim.fault.TaskInProgress as exc:
            return exc

    until = time.monotonic() + BUSY_SECONDS
    while True:
        cancel.check()
        fault = _fault_of(session, session.call(begun, changes=True), cancel, seconds)
        if fault is None:
            return
        if not isinstance(fault, vim.fault.TaskInProgress) or time.monotonic() > until:
            raise fault
        cancel.wait(LOOKS)


def _fault_of(session: Session, task: Any, cancel: Cancel, seconds: float) -> Any:
    """What the task failed of; None if it did not. A fault instead of a task is given as it is."""
    if isinstance(task, Exception):
        return task
    info: Mapping[str, Any] = {}

    def ended() -> bool:
        nonlocal info
        info = session.call(lambda: _info(session, task))
        return str(info.get("info.state")) not in RUNNING

    if not wait_until(ended, seconds, cancel):
        raise _endless(session, str(info.get("info.descriptionId") or task._moId), seconds)
    return info.get("info.error") if str(info.get("info.state")) == "error" else None


def _info(session: Session, task: Any) -> Mapping[str, Any]:
    """Of TaskInfo what is needed: all of it may name objects that pyVmomi does not expect there."""
    (found,) = retrieve_these(session.content, [task], INFO)
    return found.properties


def settle(session: Session, vm: Any, run: Run) -> None:
    """Wait for what is being done to the VM: maybe a job that was killed asked for it."""

    def settled() -> bool:
        return session.call(
            lambda: not any(_is_changing(session, task) for task in vm.recentTask or ())
        )

    if settled():
        return
    run.emit(events.Message, text=f"Waiting for what vSphere is doing to {vm._moId}")
    if not wait_until(settled, TASK_SECONDS, run.cancel):
        raise _endless(session, f"a task of {vm._moId}", TASK_SECONDS)


def _is_changing(session: Session, task: Any) -> bool:
    from pyVmomi import vmodl

    try:
        info = _info(session, task)
    except vmodl.fault.ManagedObjectNotFound:  # forgotten, some time after it ended
        return False
    name = str(info.get("info.descriptionId") or "").lower()
    return str(info.get("info.state")) in RUNNING and any(part in name for part in CHANGES)


def _endless(session: Session, what: str, seconds: float) -> SourceError:
    return SourceError(
        f"{session.place.shown}: {clean(what)} has not ended within {time_text(seconds)}",
        id="vsphere-task-timeout",
        hint="the vSphere Client tells more: does the VM wait for an answer there?",
    )


def wait_until(done: Callable[[], bool], seconds: float, cancel: Cancel) -> bool:
    """Look again and again; False if it is not so within `seconds`.

    There is a look when they are over, however long v2v itself stood still.
    """
    until, pause = time.monotonic() + seconds, FIRST_LOOK
    while True:
        over = time.monotonic() > until
        if done():
            return True
        if over:
            return False
        cancel.wait(pause)
        pause = min(2 * pause, LOOKS)
