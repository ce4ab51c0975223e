"""-i libvirt: a VM that libvirt knows, on this host or on one that is reached over ssh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import SourceError, V2VError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.checks import warn_of_repeated
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._domain.sources import SshHost, source_disk
from v2v.inputs._images import Access, serve_disks
from v2v.inputs._libvirt.frozen import frozen_disks, snapshot_command
from v2v.inputs._libvirt.host import CRASHED, PAUSED, SLEEPING, Vm, read_vm
from v2v.inputs._libvirt.listing import read_vms, summary
from v2v.inputs._libvirt.uri import ssh_files, ssh_host
from v2v.options import option
from v2v.run import Run
from v2v.types import GuestSummary, Source, SourceDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtOptions:
    uri: str | None = option(
        "-ic", "libvirt URI of the host; without it libvirt's default", default=None, metavar="URI"
    )
    password_file: Path | None = common.password_file(
        "for ssh, or for disks behind http://USER@HOST/..."
    )
    snapshot: bool = option(
        "-io snapshot",
        "read each disk as the VM's last external snapshot left it; the VM may run",
        default=False,
    )
    known_hosts: Path | None = common.known_hosts("ssh")
    identity: Path | None = common.identity("ssh")
    allow_backing: tuple[Path, ...] = common.allow_backing()


class LibvirtInput(Input):
    """The guest is the name of one VM, or its UUID."""

    mode = "libvirt"
    summary = "a VM that libvirt knows, here or on a host reached over ssh"
    Options = LibvirtOptions
    tools = ("nbdkit", "qemu-nbd")
    guests_are_files = False

    options: LibvirtOptions

    def read_source(self, run: Run) -> Source:
        vm = read_vm(self.options.uri, self.only_guest(), self.options.password_file, run)
        return self._read(vm, run)

    def list_guests(self, run: Run) -> Sequence[GuestSummary]:
        found = read_vms(self.options.uri, self.options.password_file, run)
        return [summary(one, self._read, run) for one in found]

    def _read(self, vm: Vm, run: Run) -> Source:
        self._check_still(vm)
        domain = read_domain(vm.xml, vm.name, run, mode=self.mode)
        host = ssh_host(vm.uri)
        found = domain.disks
        if self.options.snapshot:
            access = self._access(vm.uri)
            found = frozen_disks(found, vm, access, _finder(vm), local=host is None)
        disks = tuple(
            self._disk(disk, vm, host, run, strict=index == 0) for index, disk in enumerate(found)
        )
        warn_of_repeated(disks, run)
        return replace(domain.source, disks=disks, snapshots=vm.snapshots)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return serve_disks(source.disks, self._access(), run)

    def _access(self, uri: str = "") -> Access:
        """What libvirt's ssh is told in the URI holds for the disks, unless options say other."""
        given, told = common.access(self.options), ssh_files(uri)
        return replace(
            given,
            known_hosts=given.known_hosts or told.get("known_hosts"),
            identity=given.identity or told.get("identity"),
        )

    def _disk(
        self, disk: DomainDisk, vm: Vm, host: SshHost | None, run: Run, *, strict: bool = False
    ) -> SourceDisk:
        volume = _finder(vm)
        if host is not None:
            _check_remote(disk, volume)
        access = replace(self._access(vm.uri), strict=strict)
        return source_disk(disk, access, run, volumes=volume, host=host)

    def _check_still(self, vm: Vm) -> None:
        if vm.state is not None and not self.options.snapshot:
            raise _running(vm)
        if vm.saved:
            raise _saved(vm)


def _finder(vm: Vm) -> Callable[[str, str], DomainDisk]:
    """Where a volume of a pool is."""

    def volume(pool: str, name: str) -> DomainDisk:
        found = vm.volumes[pool, name]
        if isinstance(found, V2VError):
            raise found
        return found

    return volume


def _check_remote(disk: DomainDisk, volume: Callable[[str, str], DomainDisk]) -> None:
    """SFTP reads files, and sees devices as empty."""
    place = volume(disk.pool, disk.volume) if disk.kind == "volume" else disk
    if place.kind == "block":
        raise SourceError(
            f"{disk.label} is the device {place.path} of another host, which ssh cannot read",
            id="libvirt-remote-device",
            hint="run v2v on that host; or export the device from there over NBD, and read that",
        )


# What ends the state that a VM cannot be shut down in.
ENDED_BY = {PAUSED: "resume", SLEEPING: "dompmwakeup", CRASHED: "destroy"}


def _running(vm: Vm) -> SourceError:
    first = f"{vm.virsh(ENDED_BY[vm.state])}, then " if vm.state in ENDED_BY else ""
    return SourceError(
        f"{vm.name} is {vm.state}: its disks change while they are read",
        id="source-running",
        hint=f"shut it down: {first}{vm.virsh('shutdown')}; or let it go on above a snapshot, "
        f"and add -io snapshot: {snapshot_command(vm)}",
    )


def _saved(vm: Vm) -> SourceError:
    return SourceError(
        f"{vm.name} is not shut down: its memory was saved, and its disks are half of its state",
        id="libvirt-managed-save",
        hint=f"start it and shut it down: {vm.virsh('start')}; or throw its memory away, as if "
        f"its power was cut: {vm.virsh('managedsave-remove')}",
    )
