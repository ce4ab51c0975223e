"""What -o proxmox can be told, and what follows from that alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from v2v import address
from v2v.errors import UsageError
from v2v.options import option
from v2v.outputs._staged import StagedOptions
from v2v.outputs._tls import check_cafile

MODE = "-o proxmox"
PORT = 8006
USER = "root@pam"
USER_ID = re.compile(r"[^\s:/@!]+@[A-Za-z][\w.-]+")  # NAME@REALM
TOKEN_ID = re.compile(r"[A-Za-z][\w.-]+")
TOKEN = re.compile(rf"({USER_ID.pattern})!({TOKEN_ID.pattern})=([!-~]+)")  # as the API takes it
CPU_TYPE = re.compile(r"[A-Za-z0-9][\w.+-]*")
VMIDS = range(100, 1_000_000_000)
TICKET_SECONDS = 7200.0  # in which what a password buys is good for; a token has no end


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxmoxOptions(StagedOptions):
    server: str = option(
        "-oc", "address of a node of the cluster: https://USER@REALM@HOST:8006", metavar="URL"
    )
    storage: str = option("-os", "storage for the disks", metavar="STORAGE")
    password: Path | None = option(
        "-op",
        "file that holds the password, the API token's secret, or USER@REALM!NAME=SECRET",
        default=None,
    )
    node: str | None = option(
        "-oo node", "node that gets the VM (default: the only one)", default=None, metavar="NAME"
    )
    import_storage: str | None = option(
        "-oo import-storage",
        "storage that the images are sent to; its content includes `import` (default: -os if it "
        "can, else the one with the most space)",
        default=None,
        metavar="STORAGE",
    )
    token: str | None = option(
        "-oo token-id",
        "name of the API token whose secret -op holds, in place of a password",
        default=None,
        metavar="NAME",
    )
    vmid: int | None = option("-oo vmid", "number of the VM (default: the next free)", default=None)
    cpu: str = option(
        "-oo cpu",
        "processor type of the VM, such as host",
        default="x86-64-v2-AES",
        metavar="TYPE",
    )
    cafile: Path | None = option(
        "-oo cafile",
        "certificate of the authority that signed the server's (default: the system's)",
        default=None,
    )
    fingerprint: str | None = option(
        "-oo fingerprint",
        "SHA-256 fingerprint of the server's certificate, in place of an authority",
        default=None,
        metavar="SHA256",
    )
    verify: bool = option("-oo verifypeer", "check the server's certificate", default=True)
    start: bool = option("--start", "start the VM when it is complete", default=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the API is, who logs in there, and how the server is known."""

    host: str
    port: int
    user: str  # NAME@REALM
    token: str | None
    verify: bool | str  # a file of authorities; False where a fingerprint tells, too
    fingerprint: str | None  # 64 digits in small letters

    @property
    def who(self) -> str:
        return f"{self.user}{f'!{self.token}' if self.token else ''} at {self.host}"

    @property
    def is_root(self) -> bool:
        """Some things only that user may do, and none of its tokens."""
        return self.user == USER and self.token is None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}/api2/json"


def place_of(options: ProxmoxOptions) -> Place:
    """UsageError for what can be told to be wrong without asking the server."""
    found = address.parse(options.server)
    user = found.user or USER
    if found.scheme != "https" or not found.host or found.path not in ("", "/") or found.query:
        raise UsageError(
            f"-oc {options.server}: not the address of a Proxmox VE host",
            id="uri-invalid",
            hint=f"https://{USER}@HOST:{PORT}",
        )
    if not USER_ID.fullmatch(user):
        raise UsageError(
            f"-oc {options.server}: the user {user} has no realm",
            id="uri-invalid",
            hint=f"https://{user}@pam@{found.host}:{found.port or PORT} or {user}@pve@...",
        )
    return Place(
        host=found.host,
        port=found.port or PORT,
        user=user,
        token=options.token,
        verify=_verify(options),
        fingerprint=_digits(options.fingerprint) if options.fingerprint is not None else None,
    )


def check_words(options: ProxmoxOptions) -> None:
    """UsageError for a value that none can be."""
    if options.vmid is not None and options.vmid not in VMIDS:
        raise UsageError(
            f"-oo vmid={options.vmid}: no number of a VM",
            id="option-value",
            hint=f"from {VMIDS.start} to {VMIDS.stop - 1}",
        )
    if options.token is not None and not TOKEN_ID.fullmatch(options.token):
        raise UsageError(
            f"-oo token-id={options.token}: no name of a token",
            id="option-value",
            hint=f"of {USER}!backup it is `backup`; the user is a part of -oc, the secret is in "
            "the file that -op names",
        )
    if not CPU_TYPE.fullmatch(options.cpu):
        raise UsageError(f"-oo cpu={options.cpu}: no type of a processor", id="option-value")


def _verify(options: ProxmoxOptions) -> bool | str:
    given = {
        "cafile": options.cafile is not None,
        "fingerprint": options.fingerprint is not None,
        "verifypeer=false": not options.verify,
    }
    several = [f"-oo {name}" for name, one in given.items() if one]
    if len(several) > 1:
        raise UsageError(
            f"{' and '.join(several)} exclude each other",
            id="option-conflict",
            hint="a fingerprint, or an authority's certificate, is enough to know the server by",
        )
    if options.cafile is not None:
        check_cafile("-oo cafile", options.cafile)
        return str(options.cafile)
    return options.verify and options.fingerprint is None


def _digits(text: str) -> str:
    """Of what consoles and OpenSSL print: AA:BB:..., sha256 Fingerprint=AA:BB:..."""
    digits = re.sub(r"^sha-?256( fingerprint)?[:=]", "", text.strip().lower())
    digits = re.sub(r"[:\s-]", "", digits)
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise UsageError(
            f"-oo fingerprint={text[:100]}: not the fingerprint of a certificate",
            id="tls-thumbprint",
            hint="64 hexadecimal digits (SHA-256), with or without colons",
        )
    return digits
