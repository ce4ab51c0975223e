"""A Proxmox VE host for tests, and the words that name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.proxmox import ProxmoxServer
from tests.fakes.vsphere.certificates import Certificate, certificate
from v2v import options, registry
from v2v.output import Output
from v2v.outputs._proxmox import api, tasks, uploads


class Host:
    def __init__(self, server: ProxmoxServer, cert: Certificate, folder: Path) -> None:
        self.server = server
        self.certificate = cert
        self.password = folder / "password"
        self.password.write_text(f"{server.passwords['root@pam']}\n")

    def words(self, **more: str) -> dict[str, str]:
        """The options of -o proxmox; None takes one away."""
        words = {
            "-oc": self.server.address,
            "-os": "local",
            "-op": str(self.password),
            "-oo cafile": str(self.certificate.cafile),
            **more,
        }
        return {flag: word for flag, word in words.items() if word is not None}

    def output(self, **more: str) -> Output:
        cls = registry.find_output("proxmox")
        return cls(options.parse(cls.Options, self.words(**more), module="-o proxmox"))


@contextmanager
def proxmox_host(folder: Path, monkeypatch) -> Iterator[Host]:
    """Nothing waits longer than it must."""
    monkeypatch.setattr(tasks, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(tasks, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(uploads, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(api, "LEAVE_SECONDS", 2.0)
    folder.mkdir()
    server = ProxmoxServer(folder)
    cert = certificate(folder)
    with server.serve(cert.context):
        yield Host(server, cert, folder)
