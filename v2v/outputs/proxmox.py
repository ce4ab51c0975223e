"""-o proxmox: a VM of Proxmox VE, whose disks are sent to it over its REST API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from v2v.cancel import Cancel
from v2v.errors import TargetError
from v2v.hardware import Hardware, target_hardware
from v2v.outputs import _limits
from v2v.outputs._proxmox import cluster, machine, precheck, uploads
from v2v.outputs._proxmox.api import Api, open_api
from v2v.outputs._proxmox.config import (
    BUSES,
    MOST_DISKS,
    Plan,
    disk_bus,
    vm_config,
    volumes,
)
from v2v.outputs._proxmox.machine import Machine
from v2v.outputs._proxmox.names import file_prefix, vm_name
from v2v.outputs._proxmox.options import MODE, ProxmoxOptions, check_words, place_of
from v2v.outputs._proxmox.precheck import Room
from v2v.outputs._proxmox.storages import check_space, storages_of
from v2v.outputs._staged import StagedFormat, StagedOutput
from v2v.run import Run
from v2v.types import ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

ROOM = "proxmox-room"  # journal: the node, and where images are sent
MADE = "proxmox-made"  # journal: the complete VM
STARTED = "proxmox-started"
ARCHES = ("x86_64", "i686", "i586", "i486", "i386")


@dataclass(frozen=True, slots=True)
class Made:
    machine: Machine
    ref: GuestRef


class ProxmoxOutput(StagedOutput):
    mode = "proxmox"
    summary = "a VM of Proxmox VE, over its REST API"
    Options: ClassVar[type] = ProxmoxOptions
    per_disk_storage = True

    options: ProxmoxOptions

    def check_source(self, source: Source, run: Run) -> None:
        self._source = source
        check_words(self.options)
        place_of(self.options)
        self.check_staging(run)
        _limits.check_disk_count(source, MOST_DISKS, mode=self.mode)
        precheck.check_nics(source)
        if MADE in run.journal:
            return
        api = open_api(self.options, run)
        room = self._room(api, run)
        own = run.journal.get(machine.VM, Machine).vmid if machine.VM in run.journal else None
        precheck.check(api, self.options, source, self._storages(source), room, own)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        super().check_sizes(sizes, used, run)
        _limits.check_sectors(sizes, mode=self.mode)
        api = open_api(self.options, run)
        room = self._room(api, run)
        known = storages_of(api, room.node)
        raw = self.options.format is StagedFormat.RAW  # holes are sent, too
        storages = self._storages(self._source)
        disks = list(zip(storages, sizes, used, strict=True))
        sent = room.import_storage and [
            (room.import_storage, size, size if raw else data)
            for size, data in zip(sizes, used, strict=True)
        ]
        check_space(known, [*disks, *sent])

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        _limits.check_arch(guest, ARCHES, mode=self.mode)
        bus = disk_bus(guest.caps.block_bus, guest.caps.machine)
        name, most = BUSES[bus]
        count = len(self._source.disks)
        if count > most:
            raise TargetError(
                f"{MODE}: the guest has {count} disks, and drivers for {name}, which takes {most}",
                id="target-disk-count",
                hint="convert it with --block-driver virtio-scsi, which takes 31; or move the "
                "others by themselves, with v2v copy",
            )

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        if MADE in run.journal and not self._is_left(run):
            self.unstage(run)
            return run.journal.get(MADE, Made).ref
        api = open_api(self.options, run)
        if MADE not in run.journal:
            run.journal.put(MADE, self._make(api, source, guest, disks, run))
        made = run.journal.get(MADE, Made)
        self._clear(api, len(disks), run)
        if self.options.start and STARTED not in run.journal:
            with run.step("start", "Starting the VM"):
                machine.start(api, made.machine)
            run.journal.put(STARTED, True)
        return made.ref

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """A VM that is complete is handed over, and stays. A cancelled job clears, too."""
        run = run.part(cancel=Cancel())
        count = uploads.count_uploads(run, MOST_DISKS)
        begun = machine.VM in run.journal and MADE not in run.journal
        if count or begun:
            api = open_api(self.options, run)
            if begun and (found := machine.own_machine(api, run, end=True)):
                machine.remove(api, found)
            uploads.remove_uploads(api, count, run, end=True)
        if MADE not in run.journal:
            run.journal.drop([machine.VM, ROOM])
        super().discard(disks, run)

    def _make(
        self,
        api: Api,
        source: Source,
        guest: ConvertedGuest,
        disks: Sequence[TargetDisk],
        run: Run,
    ) -> Made:
        """The VM, unless an earlier run has made it."""
        hardware = target_hardware(source, guest)
        found = machine.own_machine(api, run)
        if found is None:
            room = self._room(api, run)
            images = self._send(api, room, disks, run)
            plan = self._plan(api, room, source, guest, images, run)
            with run.step("import", "Importing the disks into the VM"):
                config = vm_config(hardware, plan)
                found = machine.make(api, room.node, self.options.vmid, config, run)
        return Made(found, self._ref(api, found, hardware, disks))

    def _send(self, api: Api, room: Room, disks: Sequence[TargetDisk], run: Run) -> tuple[str, ...]:
        if ROOM not in run.journal:  # a later run must not choose another
            run.journal.put(ROOM, room)
        images = []
        for index, disk in enumerate(disks):
            with run.step(f"send:{index}", f"Sending disk {index + 1}/{len(disks)}"):
                images.append(
                    uploads.image_of(api, room.node, room.import_storage, disk, index, run)
                )
        return tuple(images)

    def _plan(
        self,
        api: Api,
        room: Room,
        source: Source,
        guest: ConvertedGuest,
        images: tuple[str, ...],
        run: Run,
    ) -> Plan:
        bridges = cluster.bridges_of(api, room.node)
        return Plan(
            job_id=run.job_id,
            cpu=self.options.cpu,
            storages=self._storages(source),
            images=images,
            bridges=tuple(cluster.bridge_of(nic, bridges) for nic in guest.nics),
        )

    def _ref(
        self, api: Api, made: Machine, hardware: Hardware, disks: Sequence[TargetDisk]
    ) -> GuestRef:
        config = machine.config_of(api, made) or {}
        final = tuple(
            replace(disk, location=volume, working=volume, format=_format(volume))
            for disk, volume in zip(disks, volumes(config, hardware), strict=True)
        )
        return GuestRef(
            name=vm_name(hardware.name),
            disks=final,
            metadata=f"{made.vmid} on {made.node}",
            start_hint=None if self.options.start else f"qm start {made.vmid}",
        )

    def _is_left(self, run: Run) -> bool:
        """Whether something is still to be done for the VM that is complete."""
        not_started = self.options.start and STARTED not in run.journal
        return not_started or uploads.count_uploads(run, MOST_DISKS) > 0

    def _clear(self, api: Api, count: int, run: Run) -> None:
        """The VM is complete: what cannot be removed is told, and nothing is lost."""
        try:
            uploads.remove_uploads(api, count, run)
        except TargetError as exc:
            run.warn(
                f"images that were sent are left at the target: {exc.message}",
                id="uploads-left",
                hint="remove them: node > storage > Import, names that begin with "
                f"{file_prefix(run.job_id)}",
            )
        self.unstage(run)

    def _room(self, api: Api, run: Run) -> Room:
        if ROOM in run.journal:
            return run.journal.get(ROOM, Room)
        return precheck.find_room(api, self.options, self._folder(run))

    def _storages(self, source: Source) -> tuple[str, ...]:
        return tuple(disk.target_storage or self.options.storage for disk in source.disks)


def _format(volume: str) -> DiskFormat:
    return DiskFormat.QCOW2 if volume.endswith(".qcow2") else DiskFormat.RAW
