"""What the engine knows: clusters, storage, disks, transfers and VMs, and how they change.

What takes a real engine time takes this one a number of looks: a client that waits sees the state
in between, and nothing depends on the clock.
"""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from tests.imageio import Daemon
from v2v.types import GiB, MiB

BLOCK = 4096  # bytes; what a host makes are whole ones
# VDSM's volumes of qcow2 on block storage, lib/vdsm/storage/blockVolume.py: what is asked for and a
# tenth more, at most the disk's size and a tenth in whole extents. Nothing extends them while no VM
# runs on them.
QCOW2_OVERHEAD = 1.1
LVM_EXTENT = 128 * MiB
CHUNK = GiB  # where nothing is asked for
BLOCK_STORAGE = ("iscsi", "fcp")
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


class Refusal(Exception):
    """An HTTP status, and the engine's words."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass
class Domain:
    id: str
    name: str
    status: str = "active"
    type: str = "data"
    storage: str = "nfs"
    available: int = 100 * GiB
    attached: bool = True


@dataclass
class Disk:
    id: str
    name: str
    description: str
    format: str  # raw or cow
    size: int
    initial_size: int | None
    sparse: bool
    domain: str
    path: Path
    image_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "locked"
    vm: str | None = None


@dataclass
class Transfer:
    id: str
    disk: str
    timeout: int
    policy: str
    host: str | None
    phase: str = "initializing"
    ticket: str = ""
    server: subprocess.Popen[bytes] | None = None


@dataclass
class Card:
    id: str
    mac: str
    profile: str | None


Attachments = dict[str, tuple[str, str]]  # of disks: interface, and whether it boots


@dataclass
class Vm:
    id: str
    name: str
    cluster: str
    ovf: str
    told: Attachments  # in the OVF
    disks: Attachments
    cards: list[Card]
    status: str = "image_locked"


@dataclass
class Faults:
    """What goes wrong; the tests set it."""

    stuck_disks: bool = False  # they stay locked
    stuck_transfers: bool = False  # they stay in the phase initializing
    stuck_finalize: bool = False  # they stay in the phase finalizing_success
    failing_transfers: bool = False  # they are paused by the system at once
    failing_finalize: bool = False  # the image is found wrong, and removed
    failing_attach: bool = False  # no disk is attached, also to a VM that is made
    refused: dict[str, str] = field(default_factory=dict)  # "POST /disks": why
    before_answer: Callable[[str], None] | None = None  # called with "POST /disks", which is done


class Model:
    def __init__(self, folder: Path, daemon: Daemon) -> None:
        self.folder = folder
        self.daemon = daemon
        self.lock = threading.RLock()
        self.password = "s3cret-of-the-engine"
        self.vdsm_id = "4c4c4544-host"
        self.reset()

    def reset(self) -> None:
        """As it was installed."""
        self.user = "admin@internal"
        for transfer in list(getattr(self, "transfers", {}).values()):
            with suppress(OSError):  # the daemon is gone
                self._close(transfer)
        for path in self.folder.iterdir():
            path.unlink()
        self.center = "dc000000-0000-0000-0000-000000000001"
        self.clusters = [Cluster("c1000000-0000-0000-0000-000000000001", "Default", self.center)]
        self.domains = [
            Domain("d1000000-0000-0000-0000-000000000001", "data"),
            Domain("d1000000-0000-0000-0000-000000000002", "fast"),
            Domain("d1000000-0000-0000-0000-000000000003", "blocks", storage="iscsi"),
            Domain("d1000000-0000-0000-0000-000000000004", "isos", type="iso"),
            Domain("d1000000-0000-0000-0000-000000000005", "loose", attached=False),
        ]
        self.networks = {"n1": "ovirtmgmt", "n2": "default"}
        self.profiles = {"p1": ("ovirtmgmt", "n1"), "p2": ("default", "n2"), "p3": ("vlan5", "n2")}
        self.disks: dict[str, Disk] = {}
        self.transfers: dict[str, Transfer] = {}
        self.vms: dict[str, Vm] = {}
        self.tickets: list[str] = []  # all that there were: who has one may write
        self.logins: list[bool] = []  # whether the password was right
        self.faults = Faults()
        self.proxy = self.daemon

    # Disks ----------------------------------------------------------------------------------------

    def add_disk(self, node: Any) -> Disk:
        name = node.get("id") or str(uuid.uuid4())
        if name in self.disks:
            raise Refusal(409, "[Cannot add Virtual Disk. Disk with the same ID already exists.]")
        domain = self._domain(node.find("storage_domains/storage_domain").get("id"))
        initial = node.findtext("initial_size")
        disk = Disk(
            id=name,
            name=node.findtext("name"),
            description=node.findtext("description") or "",
            format=node.findtext("format"),
            size=-(-int(node.findtext("provisioned_size")) // BLOCK) * BLOCK,
            initial_size=int(initial) if initial else None,
            sparse=node.findtext("sparse") == "true",
            domain=domain.id,
            path=self.folder / name,
        )
        block = domain.storage in BLOCK_STORAGE
        if (disk.format == "cow") != disk.sparse and (disk.format == "cow" or block):
            raise Refusal(409, "[Cannot add Virtual Disk. Disk configuration is incompatible]")
        kind = "qcow2" if disk.format == "cow" else "raw"
        argv = ["qemu-img", "create", "-q", "-f", kind, disk.path, str(disk.size)]
        subprocess.run(argv, check=True)
        if block and kind == "raw":  # a volume holds what was there before
            disk.path.write_bytes(bytes(range(256)) * (disk.size // 256))
        elif block:
            os.truncate(disk.path, self._volume(disk))
        self.disks[name] = disk
        return disk

    @staticmethod
    def _volume(disk: Disk) -> int:
        most = -(-int(disk.size * QCOW2_OVERHEAD) // LVM_EXTENT) * LVM_EXTENT
        if (disk.initial_size or 0) > most:
            raise Refusal(400, "[Invalid parameter: initial size]")
        size = int(disk.initial_size * QCOW2_OVERHEAD) if disk.initial_size else CHUNK
        return -(-size // MiB) * MiB

    def look_at_disk(self, name: str) -> Disk:
        disk = self._disk(name)
        seen = Disk(**vars(disk))
        busy = any(t.disk == name and t.phase not in OVER for t in self.transfers.values())
        if disk.status == "locked" and not busy and not self.faults.stuck_disks:
            disk.status = "ok"
        return seen

    def remove_disk(self, name: str) -> None:
        disk = self._disk(name)
        if disk.status == "locked":
            raise Refusal(409, "[Cannot remove Virtual Disk. The following disks are locked]")
        if disk.vm is not None:
            raise Refusal(409, "[Cannot remove Virtual Disk. It is attached to a VM]")
        disk.path.unlink()
        del self.disks[name]

    def _disk(self, name: str) -> Disk:
        if name not in self.disks:
            raise Refusal(404, "")
        return self.disks[name]

    def _domain(self, name: str) -> Domain:
        found = [one for one in self.domains if one.id == name]
        if not found:
            raise Refusal(404, "")
        if found[0].status != "active":
            raise Refusal(409, "[Cannot add Virtual Disk. The storage domain is not active.]")
        return found[0]

    # Transfers ------------------------------------------------------------------------------------

    def add_transfer(self, node: Any) -> Transfer:
        disk = self._disk(node.find("disk").get("id"))
        if disk.status != "ok":
            raise Refusal(409, "[Cannot transfer Virtual Disk: the following disks are locked]")
        disk.status = "locked"
        host = node.find("host")
        transfer = Transfer(
            id=str(uuid.uuid4()),
            disk=disk.id,
            timeout=int(node.findtext("inactivity_timeout") or 60),
            policy=node.findtext("timeout_policy") or "legacy",
            host=host.get("id") if host is not None else "h1",
        )
        self.transfers[transfer.id] = transfer
        return transfer

    def look_at_transfer(self, name: str) -> Transfer:
        transfer = self._transfer(name)
        seen = Transfer(**vars(transfer))
        if transfer.phase == "initializing" and not self.faults.stuck_transfers:
            self._open(transfer)
        elif transfer.phase == "finalizing_success" and not self.faults.stuck_finalize:
            self._finish(transfer)
        elif transfer.phase == "cancelled_user":
            self._close(transfer)
            transfer.phase = "finished_cleanup"
            disk = self.disks.pop(transfer.disk)
            disk.path.unlink()
        return seen

    def act_on_transfer(self, name: str, action: str) -> None:
        transfer = self._transfer(name)
        phases = {
            "finalize": "finalizing_success",
            "cancel": "cancelled_user",
            "pause": "paused_user",
            "resume": "transferring",
        }
        if transfer.phase not in OVER and action in phases:
            transfer.phase = phases[action]

    def pause_by_system(self) -> None:
        """As when a host is lost: tickets are gone, disks stay locked."""
        with self.lock:
            for transfer in self.transfers.values():
                if transfer.phase == "transferring":
                    self._close(transfer)
                    transfer.phase = "paused_system"

    def _transfer(self, name: str) -> Transfer:
        if name not in self.transfers:
            raise Refusal(404, "")
        return self.transfers[name]

    def _open(self, transfer: Transfer) -> None:
        if self.faults.failing_transfers:
            transfer.phase = "paused_system"
            return
        disk = self.disks[transfer.disk]
        transfer.ticket = self.daemon.add_ticket(
            f"nbd:unix:{self._serve(transfer, disk)}",
            disk.size,
            sparse=disk.sparse and not self._is_block(disk),
            inactivity_timeout=transfer.timeout,
            ops=["write"],
        )
        self.tickets.append(transfer.ticket)
        transfer.phase = "transferring"

    def _is_block(self, disk: Disk) -> bool:
        return self._domain(disk.domain).storage in BLOCK_STORAGE

    def _serve(self, transfer: Transfer, disk: Disk) -> Path:
        """An NBD server, as for all transfers whose format is raw, whatever the disk's is."""
        socket = self.daemon.folder / f"nbd-{transfer.id[:8]}"
        argv = ["qemu-nbd", "--persistent", "--shared=8", "--cache=writeback", "-k", str(socket)]
        unmap = disk.sparse and not self._is_block(disk)
        argv += ["--discard=unmap", "--detect-zeroes=unmap"] if unmap else ["--detect-zeroes=on"]
        argv += ["--image-opts", self._image(disk)]
        pid = self.daemon.folder / f"{socket.name}.pid"
        transfer.server = subprocess.Popen([*argv, "--pid-file", pid])
        while not pid.exists() and transfer.server.poll() is None:
            threading.Event().wait(0.01)
        return socket

    def _image(self, disk: Disk) -> str:
        """For qemu-nbd; a volume on block storage does not grow."""
        if disk.format != "cow":
            return f"driver=raw,file.filename={disk.path}"
        if not self._is_block(disk):
            return f"driver=qcow2,file.filename={disk.path}"
        volume = f"file.driver=raw,file.size={self._volume(disk)},file.file.filename={disk.path}"
        return f"driver=qcow2,{volume}"

    def _finish(self, transfer: Transfer) -> None:
        self._close(transfer)
        disk = self.disks[transfer.disk]
        if self.faults.failing_finalize:
            transfer.phase = "finished_failure"
            del self.disks[disk.id]
            disk.path.unlink()
            return
        transfer.phase = "finished_success"
        disk.status = "ok"

    def _close(self, transfer: Transfer) -> None:
        """No one writes after this."""
        if transfer.server is not None:
            transfer.server.terminate()
            transfer.server.wait()
            transfer.server = None
        if transfer.ticket:
            self.daemon.cancel_ticket(transfer.ticket)
        transfer.ticket = ""

    # VMs ------------------------------------------------------------------------------------------

    def add_vm(self, node: Any) -> Vm:
        if node.findtext("initialization/configuration/type") != "ova":
            raise Refusal(409, "[Cannot import VM: this OVF is read from an OVA]")
        ovf = node.findtext("initialization/configuration/data")
        tree = etree.fromstring(ovf.encode())
        system = tree.find("VirtualSystem")
        told = {
            one.get(f"{OVF}diskId"): (
                one.get(f"{OVF}disk-interface").lower(),
                one.get(f"{OVF}boot"),
            )
            for one in tree.findall("DiskSection/Disk")
        }
        vm = Vm(
            id=system.get(f"{OVF}id"),
            name=system.findtext("Name"),
            cluster=node.find("cluster").get("id"),
            ovf=ovf,
            told=told,
            disks={},
            cards=self._cards(system),
        )
        if vm.id in self.vms or vm.name in [one.name for one in self.vms.values()]:
            raise Refusal(409, "[Cannot import VM. The VM name is already in use.]")
        self.vms[vm.id] = vm
        for name, (interface, boot) in told.items():
            with suppress(Refusal):  # only an event tells of it
                self.attach(vm.id, name, interface, boot)
        return vm

    def attach(self, vm: str, name: str, interface: str, boot: str) -> None:
        disk = self._disk(name)
        if disk.status != "ok" or disk.vm is not None or self.faults.failing_attach:
            raise Refusal(409, f"[Cannot attach Virtual Disk. Disk {disk.name} is in use.]")
        disk.vm = vm
        self.vms[vm].disks[name] = (interface, boot)

    def _cards(self, system: Any) -> list[Card]:
        return [
            Card(
                str(uuid.uuid4()),
                item.findtext(f"{RASD}MACAddress"),
                self._profile_of(item.findtext(f"{RASD}Connection")),
            )
            for item in system.findall("VirtualHardwareSection/Item")
            if item.findtext(f"{RASD}ResourceType") == "10"
        ]

    def _profile_of(self, network: str) -> str | None:
        ids = [id for id, name in self.networks.items() if name == network]
        return next((id for id, (_, of) in self.profiles.items() if of in ids), None)

    def look_at_vm(self, name: str) -> Vm:
        if name not in self.vms:
            raise Refusal(404, "")
        vm = self.vms[name]
        seen = Vm(**vars(vm))
        if vm.status == "image_locked":
            vm.status = "down"
        return seen


OVER = ("finished_success", "finished_failure", "finished_cleanup")


@dataclass
class Cluster:
    id: str
    name: str
    center: str | None
    arch: str = "x86_64"
    major: int = 4
    minor: int = 7
