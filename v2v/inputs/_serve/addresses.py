"""ssh://, iscsi:// and rbd:// addresses."""

from __future__ import annotations

import shlex

from v2v import address
from v2v.address import Address, scheme_of
from v2v.errors import UsageError

SSH = "ssh"
ISCSI = "iscsi"
RBD = "rbd"
FORMS = {
    SSH: "ssh://[USER@]HOST[:PORT]/PATH",
    ISCSI: "iscsi://[USER@]HOST[:PORT]/TARGET/LUN",
    RBD: "rbd://[USER@][MONITOR[:PORT]]/POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][?conf=FILE]",
}


def parse(uri: str) -> Address:
    """UsageError for what is no such address, or holds a password."""
    found = address.parse(uri)
    if not found.path.strip("/") or (not found.host and found.scheme != RBD):
        raise invalid(uri)
    return found


def login(found: Address) -> str:
    """What is written after `ssh` to get there."""
    port = ["-p", str(found.port)] if found.port is not None else []
    return shlex.join([*port, f"{found.user}@{found.host}" if found.user else found.host])


def invalid(uri: str) -> UsageError:
    return UsageError(
        f"{uri}: not an address of this kind",
        id="uri-invalid",
        hint=f"{FORMS[scheme_of(uri)]}; a password goes into a file, given with -ip",
    )
