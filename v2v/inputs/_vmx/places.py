"""Addresses of VMs that are reached over SSH: ssh://root@esxi/vmfs/volumes/DS/VM/VM.vmx."""

from __future__ import annotations

import re
from dataclasses import dataclass

from v2v.address import Address, parse
from v2v.errors import UsageError
from v2v.inputs._ssh.place import SshPlace
from v2v.texts import clean

SCHEME = "ssh"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A host, for messages and for the addresses of its files."""

    ssh: SshPlace

    def shown(self, path: str) -> str:
        """For messages."""
        return clean(self.ssh.shown + path)

    def location(self, path: str) -> str:
        """The address that a disk is kept by."""
        ssh = self.ssh
        return Address(SCHEME, ssh.host, ssh.port, ssh.user, path).write()


def is_plain(name: str) -> bool:
    """It can be shown, and written to an address: no control characters, no bytes that are none of
    UTF-8."""
    return not _CONTROL.search(name) and not any("\ud800" <= c <= "\udfff" for c in name)


def parse_place(uri: str, scheme: str) -> Address:
    """The host and the path of an address; UsageError if it is another kind of address."""
    address = parse(uri)
    if address.scheme != scheme or not address.host or address.query:
        raise UsageError(
            f"{uri}: not of the form {scheme}://USER@HOST/PATH",
            id="uri-invalid",
            hint=f"for example {scheme}://root@esxi/vmfs/volumes/datastore1; what is not a plain "
            "letter is percent-encoded: %20 for a space, %3F for ?",
        )
    if not is_plain(address.path):
        raise UsageError(
            f"{clean(uri)}: its path has control characters",
            id="uri-invalid",
            hint="is it copied completely?",
        )
    return address
