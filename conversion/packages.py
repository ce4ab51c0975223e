"""What dpkg has installed in the guest, from its status file.

The file is the guest's: nothing is believed but the form of its lines. Source: deb-control(5) and
the description of dpkg's status field in dpkg(1).
"""

from __future__ import annotations

from typing import Any

from conversion.files import read_capped
from v2v.types import MiB

STATUS = "/var/lib/dpkg/status"
MAX_STATUS = 64 * MiB  # a desktop with 4000 packages has 5
MAX_WORD = 300  # characters of a name or a version


def installed(g: Any) -> dict[str, str]:
    """Installed packages of the mounted guest: name: version. Empty where dpkg is not used."""
    return parse_status(read_capped(g, STATUS, MAX_STATUS) or b"")


def parse_status(status: bytes) -> dict[str, str]:
    """Packages whose status is `installed`; of a name installed for two architectures, the last."""
    found: dict[str, str] = {}
    for stanza in status.split(b"\n\n"):
        fields = _fields(stanza)
        name, version = fields.get(b"Package", ""), fields.get(b"Version", "")
        if name and fields.get(b"Status", "").split(" ")[-1] == "installed":
            found[name] = version
    return found


WANTED = (b"Package", b"Status", b"Version")


def _fields(stanza: bytes) -> dict[bytes, str]:
    fields = {}
    for line in stanza.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name in WANTED and len(value) <= MAX_WORD:
            fields[name] = value.strip().decode("ascii", "replace")
    return fields
