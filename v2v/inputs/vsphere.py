"""-i vsphere: a VM of a vCenter or an ESXi host, asked through their API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _plugins as plugins
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import read_vmdk
from v2v.inputs._ssh import options as ssh
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vsphere import changes, connect, libvirt_driver, read, serving, summary
from v2v.inputs._vsphere.described import DescribedVm, VmDisk
from v2v.inputs._vsphere.options import SSH, VDDK, Api, VsphereOptions, check_useful
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.uri import read_place
from v2v.inputs._vsphere.vddk import serve_vddk
from v2v.run import Run
from v2v.types import GuestSummary, Source, SourceChange, SourceDisk

HTTPS = "https"
OURS = (None, HTTPS, SSH)  # -it: what our own reader reads
SSH_USER = "root"


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

    def preview_source(self, run: Run) -> Source:
        return self._read(run, may_run=self.changes_source)

    def read_source(self, run: Run) -> Source:
        return self._read(run, may_run=False)

    def _read(self, run: Run, *, may_run: bool) -> Source:
        self._check_transport()
        with connect.password_in_file(self._asked()) as place:
            vm = self._describe(place, run, may_run=may_run)
            disks = tuple(self._disk(disk, vm, place, run) for disk in vm.disks)
        return replace(vm.source, disks=disks)

    def list_guests(self, run: Run) -> Sequence[GuestSummary]:
        if not self._has_api():
            raise libvirt_driver.only_api("a list of VMs")
        with connect.connect(self._asked(), cancel=run.cancel) as session:
            return summary.list_vms(session)

    def prepare(self, run: Run) -> None:
        options = self.options
        with connect.connect(self._asked(), cancel=run.cancel) as session:
            vm, _ = read.locate(session, self.only_guest())
            seconds = options.shutdown_timeout
            changes.prepare(session, vm.id, vm.name, options.running, run, shutdown_seconds=seconds)

    def undo(self, change: SourceChange, run: Run) -> None:
        with connect.connect(self._asked(), cancel=run.cancel) as session:
            changes.undo(session, change, run)

    @contextmanager
    def serve(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        ways = {VDDK: self._serve_vddk} | dict.fromkeys(OURS, self._serve_ours)
        way = ways.get(self.options.transport, self._serve_plugin)
        with (
            connect.password_in_file(self._asked()) as place,
            way(source, place, run) as endpoints,
        ):
            yield endpoints

    def _asked(self) -> VspherePlace:
        options = self.options
        return read_place(
            options.uri,
            password_file=options.password_file,
            cafile=options.cafile,
            thumbprint=options.thumbprint,
        )

    def _check_transport(self) -> None:
        check_useful(self.options)
        word = self.options.transport
        if word is None or word in (HTTPS, SSH, VDDK):
            return
        if not word.startswith(plugins.TRANSPORT):
            raise UsageError(
                f"-i vsphere does not know -it {word}",
                id="input-transport",
                hint="it knows https, ssh, vddk, and nbdkit:NAME for any plugin of nbdkit",
            )
        plugins.check_parameters(
            plugins.plugin_name(word), self.options.parameters, serving.PLUGIN_WORDS
        )

    def _has_api(self) -> bool:
        """Rather than libvirt."""
        return self.options.api is Api.PYVMOMI or (
            self.options.api is Api.AUTO and connect.has_pyvmomi()
        )

    # Reading --------------------------------------------------------------------------------------

    def _describe(self, place: VspherePlace, run: Run, *, may_run: bool) -> DescribedVm:
        if not self._has_api():
            return self._describe_by_libvirt(place, run)
        wish = read.Wish(
            word=self.only_guest(),
            mode=self.mode,
            snapshot=self.options.snapshot or (None if may_run else changes.frozen(run)),
            may_run=may_run,
            vddk=self.options.transport not in OURS,
        )
        with connect.connect(place, cancel=run.cancel) as session:
            return read.read_vm(session, wish, run)

    def _describe_by_libvirt(self, place: VspherePlace, run: Run) -> DescribedVm:
        if self.options.snapshot is not None:
            raise libvirt_driver.only_api("-io snapshot")
        if self.changes_source:
            raise libvirt_driver.only_api("-io running")
        at = libvirt_driver.LibvirtPlace(place, self.options.uri)
        return libvirt_driver.read_vm(at, self.only_guest(), run, mode=self.mode)

    def _disk(self, disk: VmDisk, vm: DescribedVm, place: VspherePlace, run: Run) -> SourceDisk:
        bare = serving.source_disk(disk, vm, self._location(disk, vm, place), None)
        if vm.running or self.options.transport not in OURS:
            return bare
        facts = read_vmdk(self._recipe(bare, place, vm.host), run)
        return serving.source_disk(disk, vm, bare.location, facts)

    def _location(self, disk: VmDisk, vm: DescribedVm, place: VspherePlace) -> str:
        """It does not tell which ESXi host has the VM: a vCenter may move it meanwhile."""
        if self.options.transport in (None, HTTPS):
            return serving.folder_address(disk.path, vm.datacenter, place)
        if self.options.transport == SSH and self._host_is_named(place):
            return self._ssh_place(vm.host, place).shown + disk.path
        return serving.vmware_path(disk.path)

    # Serving --------------------------------------------------------------------------------------

    def _serve_ours(
        self, source: Source, place: VspherePlace, run: Run
    ) -> AbstractContextManager[Sequence[Endpoint]]:
        host = self._host_now(source, place, run)
        return serving.serve_recipes(
            [self._recipe(disk, place, host) for disk in source.disks], run
        )

    def _recipe(self, disk: SourceDisk, place: VspherePlace, host: str) -> Recipe:
        """`host`: the ESXi host that has the VM."""
        if self.options.transport == SSH:
            return serving.ssh_recipe(disk, self._ssh_place(host, place))
        return serving.folder_recipe(disk, place)

    def _host_is_named(self, place: VspherePlace) -> bool:
        return self.options.ssh_host is not None or place.scheme == "esx"

    def _host_now(self, source: Source, place: VspherePlace, run: Run) -> str:
        """The ESXi host that has the VM, where that is asked over SSH."""
        if self.options.transport != SSH or self._host_is_named(place):
            return ""
        if not self._has_api():  # which only sees the VMs of the host that the address names
            return place.path.rpartition("/")[2]
        with connect.connect(place, cancel=run.cancel) as session:
            return read.locate(session, source.disks[0].details[serving.VM])[0].host

    def _ssh_place(self, host: str, place: VspherePlace) -> SshPlace:
        """An ESXi host that is asked itself has the same users as its SSH server."""
        esx = place.scheme == "esx"
        host, user = (place.server, place.user) if esx else (host, SSH_USER)
        password = self.options.ssh_password_file or (place.password_file if esx else None)
        told = replace(ssh.place_of(self.options, host=host, user=user), password_file=password)
        return serving.ssh_place(self.options.ssh_host, host, told)

    def _serve_vddk(
        self, source: Source, place: VspherePlace, run: Run
    ) -> AbstractContextManager[Sequence[Endpoint]]:
        paths = [serving.datastore_path(disk) for disk in source.disks]
        first = source.disks[0].details
        id, snapshot = first[serving.VM], first.get(serving.SNAPSHOT)
        return serve_vddk(paths, id, place, self.options, run, snapshot=snapshot)

    def _serve_plugin(
        self, source: Source, place: VspherePlace, run: Run
    ) -> AbstractContextManager[Sequence[Endpoint]]:
        name = plugins.plugin_name(self.options.transport or "")
        words = serving.plugin_words(source, place)
        return plugins.serve_plugin(name, self.options.parameters, words, run)
