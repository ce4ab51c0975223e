"""Which vCenter or ESXi host is asked, and how it is known to be that: a value without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class VspherePlace:
    """From -ic vpx://USER@VCENTER/DATACENTER/[CLUSTER/]ESXI or esx://USER@ESXI."""

    scheme: str  # vpx or esx
    server: str
    port: int = HTTPS_PORT
    user: str
    path: str = ""  # vpx: what comes after the server, DATACENTER/... ; may be empty
    password_file: Path | None = None  # its first line; maybe /proc/PID/fd/N
    cafile: Path | None = None  # certificates to trust, rather than those that this host trusts
    thumbprint: str | None = None  # of the server's own certificate: SHA-256, or the older SHA-1
    verify: bool = True  # False only if the user asked for it: ?no_verify=1

    @property
    def shown(self) -> str:
        """For messages: https://vcenter:8443, without the user."""
        host = f"[{self.server}]" if ":" in self.server else self.server
        return f"https://{host}" + (f":{self.port}" if self.port != HTTPS_PORT else "")
