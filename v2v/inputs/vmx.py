"""-i vmx: a VM from its folder, of VMware ESXi, Workstation, Fusion or Player.

The folder is on this host, or on one that is reached over SSH: an ESXi host, as a rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from v2v.address import scheme_of
from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._images import Access, serve_disks
from v2v.inputs._ssh import options as ssh
from v2v.inputs._ssh.place import SshReader
from v2v.inputs._vmware import VOLUMES
from v2v.inputs._vmx import over_ssh
from v2v.inputs._vmx.local import LocalFolder
from v2v.inputs._vmx.over_ssh import Host
from v2v.inputs._vmx.places import SCHEME, parse_place
from v2v.inputs._vmx.vm import read_folder
from v2v.options import did_you_mean, option
from v2v.run import Run
from v2v.types import DiskFormat, GuestSummary, Source

HOST_SCHEME = "esx+ssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmxOptions:
    uri: str | None = option(
        "-ic",
        "the ESXi host, to find a VM by its name: esx+ssh://root@esxi[/vmfs/volumes/DATASTORE]",
        default=None,
        metavar="URI",
    )
    transport: str | None = option(
        "-it", "ssh: the guest is ssh://root@esxi/vmfs/volumes/...", default=None
    )
    snapshot: str | None = option(
        "-io snapshot",
        "read the disks as they were when this snapshot was made, rather than as they are now",
        default=None,
        metavar="NAME",
    )
    allow_backing: tuple[Path, ...] = common.allow_backing("the VM and its disks")
    password_file: Path | None = common.password_file("for ssh")
    known_hosts: Path | None = ssh.known_hosts()
    host_key: str | None = ssh.host_key()
    identity: Path | None = ssh.identity()
    reader: SshReader = ssh.reader()


SSH_ONLY = ("password_file", "known_hosts", "host_key", "identity", "reader")  # do nothing here


class VmxInput(Input):
    mode = "vmx"
    summary = "a VM's folder of VMware, here or on an ESXi host that is reached over ssh"
    Options = VmxOptions
    tools = ("nbdkit", "qemu-nbd")

    options: VmxOptions

    def read_source(self, run: Run) -> Source:
        word, snapshot = self.only_guest(), self.options.snapshot
        self._check_words(word)
        if not self._is_remote(word):
            return read_folder(LocalFolder(word, self._access()), snapshot, run)
        name = word if self.options.uri is not None else None
        return over_ssh.read_host(self._host(word), name, snapshot, run)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        word = self.only_guest()
        if self._is_remote(word):
            return over_ssh.serve_host(self._host(word).ssh, source.disks, run)
        return serve_disks(source.disks, self._access(), run)

    def list_guests(self, run: Run) -> Sequence[GuestSummary]:
        if self.options.uri is None:
            raise UsageError(
                "-i vmx lists the VMs of a host that -ic names",
                id="list-impossible",
                hint=f"v2v list -ic {HOST_SCHEME}://root@esxi",
            )
        return over_ssh.list_host(self._host(), run)

    def _is_remote(self, word: str) -> bool:
        return self.options.uri is not None or scheme_of(word) == SCHEME

    def _host(self, word: str = "") -> Host:
        uri = self.options.uri
        address = parse_place(word, SCHEME) if uri is None else parse_place(uri, HOST_SCHEME)
        path = address.path if uri is None else address.path.rstrip("/") or VOLUMES
        place = ssh.place_of(self.options, host=address.host, port=address.port, user=address.user)
        return Host(place, path, tuple(map(str, self.options.allow_backing)))

    def _check_words(self, word: str) -> None:
        """What does not fit together would else be left out without a word."""
        transport = self.options.transport
        if transport not in (None, "ssh"):
            raise UsageError(
                f"-it {transport}: -i vmx knows no such transport",
                id="input-transport",
                hint=did_you_mean(transport, ["ssh"]) or "-it ssh, or none for a file of this host",
            )
        if self._is_remote(word):
            return
        if scheme_of(word) or transport:
            raise UsageError(
                f"{word}: -i vmx reads files of this host, or ssh://USER@HOST/PATH",
                id="input-transport",
                hint="for example ssh://root@esxi/vmfs/volumes/datastore1/web/web.vmx",
            )
        for field in dataclasses.fields(VmxOptions):
            if field.name in SSH_ONLY and getattr(self.options, field.name) != field.default:
                raise UsageError(
                    f"{field.metadata['flag']}: {word} is a file of this host",
                    id="option-useless",
                    hint="leave it out; over ssh, the guest is ssh://USER@HOST/PATH",
                )

    def _access(self) -> Access:
        allowed = tuple(path.resolve() for path in self.options.allow_backing)
        return Access(format=DiskFormat.VMDK, allowed=allowed)
