"""The VM at the target: made in one task, known again by its mark, started, removed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._proxmox import tasks
from v2v.outputs._proxmox.api import Api
from v2v.outputs._proxmox.cluster import next_vmid, vmid_taken
from v2v.outputs._proxmox.config import Config
from v2v.outputs._proxmox.names import file_prefix, is_marked
from v2v.run import Run

VM = "proxmox-vm"  # journal: a Machine, before it is made
IMPORTED = "create full clone of drive ("  # in the log of a task, before an image
DEVICES = {  # that a VM can do without, where only root@pam may give them
    "vmgenid": "generation id of the source, but a new one",
    "rng0": "random number generator",
}
ROOT_ONLY = re.compile(rf"only root can set '({'|'.join(DEVICES)})' config")
TRIES = 10  # others may take the free number that we were told


@dataclass(frozen=True, slots=True)
class Machine:
    node: str
    vmid: int
    upid: str = ""  # the task that makes it, as soon as it is known

    @property
    def path(self) -> str:
        return f"nodes/{self.node}/qemu/{self.vmid}"


@dataclass(frozen=True, slots=True)
class _Power:
    status: str = ""


def make(api: Api, node: str, vmid: int | None, config: Config, run: Run) -> Machine:
    """The server makes all of it, or nothing: what it began is cleared by the task that fails."""
    for _ in range(TRIES):
        machine = Machine(node, vmid or next_vmid(api))
        run.cancel.check()
        run.journal.put(VM, machine)
        try:
            upid = api.uncancelled().post(
                f"nodes/{node}/qemu", str, "create the VM", vmid=machine.vmid, **config
            )
        except TargetError as exc:
            config = _what_may_be(config, exc, vmid, run)
            continue
        run.journal.put(VM, replace(machine, upid=upid))
        tasks.wait_for(api, upid, "import the disks into the VM")
        return machine
    raise TargetError(
        f"{api.place.host}: the numbers of VMs that it says are free are taken",
        id="target-exists",
        hint="choose one with -oo vmid=N",
    )


def _what_may_be(config: Config, error: TargetError, vmid: int | None, run: Run) -> Config:
    """What to try with next, of a VM that was not made; raises if there is nothing."""
    refused = error.id == "target-refused"
    root_only = ROOT_ONLY.search(error.message)
    if not refused or not (root_only or "already exists" in error.message):
        raise error
    run.journal.drop([VM])
    if root_only:
        run.warn(f"the VM gets no {DEVICES[root_only[1]]}: {error.message}", id="target-root-only")
        return {key: word for key, word in config.items() if key != root_only[1]}
    if vmid is not None:
        raise vmid_taken(vmid) from error
    return config


def own_machine(api: Api, run: Run, *, end: bool = False) -> Machine | None:
    """The VM that an earlier run of the job made. What is still being made is waited for, or
    ended: `end`; but a task that may be another job's, which got the number, is waited for."""
    if VM not in run.journal:
        return None
    machine = run.journal.get(VM, Machine)
    for upid in tasks.active(api, machine.node, "qmcreate", vmid=machine.vmid):
        ours = end and (upid == machine.upid or _imports(api, upid, run.job_id))
        tasks.settle(api, [upid], end=ours)
    config = config_of(api, machine)
    if config is None:
        return None
    if is_marked(str(config.get("description", "")), run.job_id):
        return machine
    if machine.upid and config.get("lock") == "create" and "description" not in config:
        _tell_of_ruins(machine, run)
    return None


def _imports(api: Api, upid: str, job_id: str) -> bool:
    """Whether the task makes a VM of the job's images: of one whose UPID never reached us."""
    return f"/{file_prefix(job_id)}" in tasks.told(api, upid, IMPORTED)


def _tell_of_ruins(machine: Machine, run: Run) -> None:
    """A node that goes down while it makes the VM leaves it locked, without our mark."""
    run.warn(
        f"VM {machine.vmid} on {machine.node} is left locked, for its making was broken off",
        id="vm-left",
        hint=f"remove it there, as root: qm unlock {machine.vmid} && qm destroy {machine.vmid}",
    )


def config_of(api: Api, machine: Machine) -> dict[str, Any] | None:
    """None when there is no such VM."""
    return api.find(f"{machine.path}/config", dict[str, Any], "read the VM's configuration")


def start(api: Api, machine: Machine) -> None:
    power = api.get(f"{machine.path}/status/current", _Power, "see whether the VM runs")
    if power.status == "running":
        return
    upid = api.post(f"{machine.path}/status/start", str, "start the VM")
    try:
        tasks.wait_for(api, upid, "start the VM")
    except TargetError as exc:
        if exc.id != "target-task":
            raise
        raise TargetError(
            f"VM {machine.vmid} is complete, and does not start: {exc.message}",
            id="target-start",
            hint="the VM is kept: change it there; `v2v resume` tries again",
        ) from exc


def remove(api: Api, machine: Machine) -> None:
    doing = "remove the VM that is not complete"
    tasks.wait_for(api, api.delete(machine.path, str, doing, purge=1), doing)
