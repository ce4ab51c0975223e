"""What the server knows: nodes, storages, VMs, tasks, and the faults that a test wants."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GiB = 1024**3
TICKET_SECONDS = 7200.0
VM_PRIVILEGES = {
    "VM.Allocate",
    "VM.Audit",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.PowerMgmt",
}
STORAGE_PRIVILEGES = {
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
}
PRIVILEGES = {
    "/vms": VM_PRIVILEGES,
    "/storage": STORAGE_PRIVILEGES,
    "/sdn": {"SDN.Audit", "SDN.Use"},
}


def sdn_path(bridge: str, tag: str = "") -> str:
    """A name that begins with vnet is a VNet's."""
    zone = "office" if bridge.startswith("vnet") else "localnetwork"
    return f"/sdn/zones/{zone}/{bridge}" + (f"/{tag}" if tag else "")


class ApiError(Exception):
    """An answer with this status and reason, as the server makes them of what dies inside."""

    def __init__(self, status: int, reason: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.errors = errors


class Stopped(Exception):
    """The task was told to end."""


@dataclass
class Storage:
    folder: Path
    type: str = "dir"
    content: str = "images,iso,import"
    enabled: int = 1
    active: int = 1
    avail: int = 100 * GiB

    def image(self, name: str) -> Path:
        return self.folder / "import" / name

    def volume(self, vmid: int, name: str) -> Path:
        return self.folder / "images" / str(vmid) / name


@dataclass
class Task:
    upid: str
    kind: str
    vmid: str
    user: str
    status: str = "running"
    exitstatus: str = ""
    log: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def checkpoint(self) -> None:
        if self.stop.is_set():
            raise Stopped


class Hold:
    """A place where the server waits, if a test closes it: `reached` tells when it does."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_by(self, stop: threading.Event | None = None) -> None:
        if not self._open.is_set():
            self.reached.set()
        while not self._open.wait(0.02):
            if stop is not None and stop.is_set():
                return


@dataclass
class Faults:
    missing: set[tuple[str, str]] = field(default_factory=set)  # path and privilege
    cut_uploads: list[int] = field(default_factory=list)  # after so many bytes, one of each upload
    lost_answers: int = 0  # uploads that are done, without the client being told
    lost_creates: int = 0  # VMs whose making begins, without the client being told
    corrupt: bool = False  # a byte of an upload is another one
    import_error: str = ""
    start_error: str = ""
    silent_polls: int = 0  # looks at a task that end without an answer
    gateway_polls: int = 0  # that another node does not answer
    taken_ids: int = 0  # free numbers that are taken when they are used
    answers: dict[str, bytes] = field(default_factory=dict)  # path: a body of an answer
    redirect: str = ""
    cookie: str = ""  # that somebody on the way sets with each answer
    upload_seconds: float = 0.0  # that an upload takes, by the server's clock
    upload: Hold = field(default_factory=Hold)  # when the first bytes are there
    received: Hold = field(default_factory=Hold)  # when all of an upload is there
    imports: Hold = field(default_factory=Hold)  # before the disks are imported
    copy: Hold = field(default_factory=Hold)  # before an upload is copied to its storage

    def open(self) -> None:
        for hold in (self.upload, self.received, self.imports, self.copy):
            hold.open()


class State:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = {"pve1": "online"}
        self.version = "9.0.11"
        self.root_only = {"vmgenid"}  # and rng0, where qemu-server is older
        self.local = "pve1"  # the node that answers
        self.storages = {"local": Storage(folder / "local")}
        self.bridges = ["vmbr0"]
        self.vms: dict[int, dict[str, Any]] = {}
        self.running: set[int] = set()
        self.passwords = {"root@pam": "s3cret-of-root"}
        self.tokens: dict[str, str] = {}  # USER!NAME: secret
        self.tickets: dict[str, tuple[str, float]] = {}  # ticket: user, and when it ends
        self.clock = 0.0  # seconds, by which tickets end
        self.tasks: dict[str, Task] = {}
        self.faults = Faults()
        self.requests: list[str] = []
        self.lock = threading.RLock()
        self.receiving = 0  # uploads
        self._change = threading.Condition()
        self._pids = itertools.count(0x1000)

    @contextmanager
    def upload(self) -> Iterator[None]:
        with self._change:
            self.receiving += 1
        try:
            yield
        finally:
            with self._change:
                self.receiving -= 1
                self._change.notify_all()

    def wait_idle(self, seconds: float) -> None:
        """Returns when nothing is being received any more."""
        with self._change:
            assert self._change.wait_for(lambda: self.receiving == 0, seconds)

    def check(self, user: str, path: str, *privileges: str) -> None:
        lacking = [name for name in privileges if name not in self.privileges(user, path)]
        if lacking:
            reason = f"Permission check failed ({path}, {'|'.join(lacking)})"
            raise ApiError(403, reason)

    def check_any(self, user: str, path: str, *privileges: str) -> bool:
        return bool(self.privileges(user, path) & {*privileges})

    def privileges(self, user: str, path: str) -> set[str]:
        have = next(have for start, have in PRIVILEGES.items() if path.startswith(start))
        if user == "root@pam":
            return have
        kind = "/vms" if path.startswith("/vms") else path
        return {name for name in have if not {(path, name), (kind, name)} & self.faults.missing}

    def start(
        self, kind: str, vmid: str, user: str, work: Callable[[Task], None], node: str = ""
    ) -> str:
        """A task in a thread, of the node that answers or another; gives its UPID."""
        pid, now = next(self._pids), int(time.time())
        upid = f"UPID:{node or self.local}:{pid:08X}:00AB12CD:{now:08X}:{kind}:{vmid}:{user}:"
        task = self.tasks[upid] = Task(upid, kind, vmid, user)

        def run() -> None:
            try:
                work(task)
                task.exitstatus = "OK"
            except Stopped:
                task.exitstatus = "unexpected status"
                task.log.append("TASK ERROR: received interrupt")
            except Exception as exc:  # noqa: BLE001  what the task says
                task.exitstatus = str(exc)
                task.log.append(f"TASK ERROR: {exc}")
            task.status = "stopped"

        threading.Thread(target=run, name=upid, daemon=True).start()
        return upid
