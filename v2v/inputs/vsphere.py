"""-i vsphere: a VM of a vCenter or an ESXi host, asked through their API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._ssh import options as ssh
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.inputs._vsphere.described import DescribedVm, VmDisk
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.uri import read_place
from v2v.options import option
from v2v.run import Run
from v2v.types import GuestSummary, Source, SourceChange, SourceDisk

HTTPS, SSH = "https", "ssh"
TRANSPORTS = (HTTPS, SSH)
SSH_USER = "root"
SHUTDOWN_SECONDS = 300


class Api(StrEnum):
    """How the server is asked."""

    AUTO = "auto"  # pyVmomi if it is installed: it tells more
    LIBVIRT = "libvirt"
    PYVMOMI = "pyvmomi"


@dataclass(frozen=True, slots=True, kw_only=True)
class VsphereOptions:
    uri: str = option(
        "-ic",
        "the server: vpx://USER@VCENTER[/DATACENTER/[CLUSTER/]ESXI], or esx://root@ESXI",
        metavar="URI",
    )
    password_file: Path | None = common.password_file("of the user in the URI")
    api: Api = option("--vsphere-api", "how the server is asked", default=Api.AUTO)
    transport: str | None = option(
        "-it",
        "how the disks are read: https (default, from where the metadata are), or ssh, from the "
        "ESXi host",
        default=None,
        metavar="|".join(TRANSPORTS),
    )
    snapshot: str | None = option(
        "-io snapshot",
        "read the disks as they were when this snapshot was made; the VM may run",
        default=None,
        metavar="NAME",
    )
    running: Running = option(
        "-io running",
        "what becomes of a VM that runs; `v2v undo` takes it back",
        default=Running.REFUSE,
    )
    shutdown_timeout: int = option(
        "-io shutdown-timeout",
        "with running=shutdown: how long the VM may take",
        default=SHUTDOWN_SECONDS,
        metavar="SECONDS",
    )
    cafile: Path | None = option(
        "-io cafile",
        "file with the certificates (PEM) that the server's is checked by",
        default=None,
    )
    thumbprint: str | None = option(
        "-io thumbprint",
        "the fingerprint that the server's own certificate must have: SHA-256, or SHA-1",
        default=None,
    )
    ssh_host: str | None = option(
        "-io ssh-host",
        "with -it ssh: the ESXi host, where it is not to be the one that has the VM",
        default=None,
        metavar="[USER@]HOST[:PORT]",
    )
    ssh_password_file: Path | None = option(
        "-io ssh-password", "with -it ssh: file with the password for the ESXi host", default=None
    )
    reader: SshReader = ssh.reader()
    known_hosts: Path | None = ssh.known_hosts()
    host_key: str | None = ssh.host_key()
    identity: Path | None = ssh.identity()


class VsphereInput(Input):
    """The guest is a VM's name, its inventory path, a UUID, or its reference (vm-42)."""

    mode = "vsphere"
    aliases = ("vpx", "esx", "vcenter")
    summary = "a VM of a vCenter or an ESXi host"
    Options = VsphereOptions
    tools = ("nbdkit",)
    guests_are_files = False

    options: VsphereOptions

    @property
    def changes_source(self) -> bool:
        """A snapshot that is there already stands still while the VM runs."""
        return self.options.running is not Running.REFUSE and self.options.snapshot is None

    def prepare(self, run: Run) -> None:
        from v2v.inputs._vsphere import changes, connect, read

        options = self.options
        with connect.connect(self._asked(), cancel=run.cancel) as session:
            vm, _ = read.locate(session, self.only_guest())
            seconds = options.shutdown_timeout
            changes.prepare(session, vm.id, vm.name, options.running, run, shutdown_seconds=seconds)

    def undo(self, change: SourceChange, run: Run) -> None:
        from v2v.inputs._vsphere import changes, connect

        with connect.connect(self._asked(), cancel=run.cancel) as session:
            changes.undo(session, change, run)

    def preview_source(self, run: Run) -> Source:
        return self._read(run, may_run=self.changes_source)

    def read_source(self, run: Run) -> Source:
        return self._read(run, may_run=False)

    def _read(self, run: Run, *, may_run: bool) -> Source:
        self._check_transport()
        with self._place() as place:
            vm = self._describe(place, run, may_run=may_run)
            disks = tuple(self._disk(disk, vm, place, run) for disk in vm.disks)
        return replace(vm.source, disks=disks)

    def list_guests(self, run: Run) -> Sequence[GuestSummary]:
        from v2v.inputs._vsphere import connect, summary

        with connect.connect(self._asked(), cancel=run.cancel) as session:
            return summary.list_vms(session)

    @contextmanager
    def serve(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        from v2v.inputs._reader.serve import serve_recipe

        with ExitStack() as stack:
            place = stack.enter_context(self._place())
            yield [
                stack.enter_context(
                    serve_recipe(self._recipe(disk, place), run, f"source-{number}")
                )
                for number, disk in enumerate(source.disks)
            ]

    def _check_transport(self) -> None:
        word = self.options.transport
        if word is not None and word not in TRANSPORTS:
            raise UsageError(
                f"-i vsphere does not know -it {word}",
                id="input-transport",
                hint=f"it knows {', '.join(TRANSPORTS)}",
            )

    def _asked(self) -> VspherePlace:
        options = self.options
        return read_place(
            options.uri,
            password_file=options.password_file,
            cafile=options.cafile,
            thumbprint=options.thumbprint,
        )

    @contextmanager
    def _place(self) -> Iterator[VspherePlace]:
        """With a file for the password, wherever that is from."""
        from v2v.inputs._vsphere.connect import password_in_file

        with password_in_file(self._asked()) as place:
            yield place

    def _describe(self, place: VspherePlace, run: Run, *, may_run: bool) -> DescribedVm:
        from v2v.inputs._vsphere import changes, connect, read

        with connect.connect(place, cancel=run.cancel) as session:
            return read.read_vm(
                session,
                self.only_guest(),
                self.options.snapshot or changes.frozen(run),
                run,
                mode=self.mode,
                may_run=may_run,
            )

    def _disk(self, disk: VmDisk, vm: DescribedVm, place: VspherePlace, run: Run) -> SourceDisk:
        from v2v.inputs._reader.serve import read_vmdk
        from v2v.inputs._vsphere.serving import folder_address, source_disk

        location = folder_address(disk.path, vm.datacenter, place)
        if self.options.transport == SSH:
            location = self._ssh_place(vm.host, place).shown + disk.path
        found = source_disk(disk, vm, location, None)
        return source_disk(disk, vm, location, read_vmdk(self._recipe(found, place), run))

    def _recipe(self, disk: SourceDisk, place: VspherePlace) -> Recipe:
        from v2v.inputs._vsphere.serving import HOST, folder_recipe, ssh_recipe

        if self.options.transport == SSH:
            return ssh_recipe(disk, self._ssh_place(disk.details.get(HOST, ""), place))
        return folder_recipe(disk, place)

    def _ssh_place(self, host: str, place: VspherePlace) -> SshPlace:
        """An ESXi host that is asked itself has the same users as its SSH server."""
        from v2v.inputs._vsphere.serving import ssh_place

        esx = place.scheme == "esx"
        password = self.options.ssh_password_file or (place.password_file if esx else None)
        told = ssh.place_of(
            self.options, host=place.server if esx else host, user=place.user if esx else SSH_USER
        )
        return ssh_place(self.options.ssh_host, told.host, replace(told, password_file=password))
