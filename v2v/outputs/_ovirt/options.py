"""What -o rhv-upload can be told, and what follows from that alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from v2v import address
from v2v.errors import UsageError
from v2v.hardware import valid_uuid
from v2v.options import REPEATED, option
from v2v.outputs._ovirt.limits import check_kind
from v2v.types import Allocation

MODE = "-o rhv-upload"
API = "/ovirt-engine/api"  # where every engine has it
USER = "admin@internal"  # the administrator that an engine is installed with


class UploadFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


def both(key: str) -> list[str]:
    """The other spelling of an -oo key."""
    return [f"-oo ovirt-{key}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    engine: str = option(
        "-oc", "address of the engine's API: https://[USER@]HOST/ovirt-engine/api", metavar="URL"
    )
    storage: str = option("-os", "storage domain for the disks", metavar="DOMAIN")
    password: Path | None = option("-op", "file that holds the password", default=None)
    format: UploadFormat = option("-of", "format of the disks", default=UploadFormat.RAW)
    allocation: Allocation | None = option(
        "-oa",
        "sparse, or preallocated (default: sparse where the storage domain can)",
        default=None,
    )
    start: bool = option("--start", "start the VM when it is complete", default=False)
    cluster: str | None = option(
        "-oo rhv-cluster",
        "cluster of the VM (default: the only one, or the one called Default)",
        default=None,
        metavar="NAME",
        also=both("cluster"),
    )
    cafile: Path | None = option(
        "-oo rhv-cafile",
        "certificate of the authority that signed the engine's (default: the system's)",
        default=None,
        metavar="FILE",
        also=both("cafile"),
    )
    direct: bool = option(
        "-oo rhv-direct",
        "send to the oVirt host; false: through the engine's proxy alone",
        default=True,
        also=both("direct"),
    )
    proxy: bool = option(
        "-oo rhv-proxy", "the same as rhv-direct=false", default=False, also=both("proxy")
    )
    verify_peer: bool = option(
        "-oo rhv-verifypeer",
        "check the certificates of engine and hosts",
        default=True,
        also=both("verifypeer"),
    )
    disk_uuids: REPEATED = option(
        "-oo rhv-disk-uuid",
        "UUID of the next disk; once for each disk, or not at all",
        default=(),
        metavar="UUID",
        also=both("disk-uuid"),
    )


@dataclass(frozen=True, slots=True)
class Login:
    """Where the API is, and who logs in there."""

    url: str
    host: str
    user: str

    @property
    def who(self) -> str:
        return f"{self.user} at {self.host}"

    @property
    def certificate_url(self) -> str:
        """Where an engine gives out its authority's certificate."""
        service = "/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA"
        return f"{self.url.removesuffix('/api')}{service}"


def login(options: UploadOptions) -> Login:
    found = address.parse(options.engine)
    if found.scheme != "https" or not found.host or found.query:
        raise UsageError(
            f"-oc {options.engine}: not the address of an engine's API",
            id="uri-invalid",
            hint=f"https://ENGINE{API}",
        )
    path = found.path.rstrip("/") or API
    url = address.Address("https", found.host, found.port, path=path).write()
    return Login(url, found.host, found.user or USER)


def check_options(options: UploadOptions, disks: int) -> None:
    """UsageError for what can be told without asking the engine."""
    login(options)
    check_kind(options.format, options.allocation, mode=MODE)
    if options.cafile is not None and not options.cafile.is_file():
        raise UsageError(
            f"-oo rhv-cafile={options.cafile}: no such file",
            id="option-value",
            hint=f"curl -k -o ca.pem '{login(options).certificate_url}' fetches it; "
            "compare its fingerprint with the engine's own",
        )
    _check_uuids(options.disk_uuids, disks)


def _check_uuids(words: Sequence[str], disks: int) -> None:
    flag = "-oo rhv-disk-uuid"
    for word in words:
        if valid_uuid(word) is None:
            hint = "as uuidgen makes them: 8-4-4-4-12 hexadecimal digits"
            raise UsageError(f"{flag}={word}: not a UUID", id="option-value", hint=hint)
    if len({valid_uuid(word) for word in words}) != len(words):
        raise UsageError(
            f"{flag}: the same UUID twice", id="option-value", hint="give each disk its own"
        )
    if words and len(words) != disks:
        raise UsageError(
            f"{flag} is given {len(words)} times, the VM has {disks} disks",
            id="option-value",
            hint="give it once for each disk, or leave it out",
        )
