"""A small OpenStack of a test's own, and the words that v2v is to be given for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.vsphere.certificates import certificate

if TYPE_CHECKING:
    from tests.fakes.openstack.server import State


@dataclass
class Cloud:
    state: State
    address: str
    cafile: Path
    password: Path  # the file that holds it
    server: str  # the id of the conversion server

    @property
    def login(self) -> dict[str, str]:
        return {
            "-oc": f"{self.address}/identity/v3",
            "-op": str(self.password),
            "-oo cafile": str(self.cafile),
            "-oo os-username": "user",
            "-oo os-user-domain-name": "Default",
            "-oo os-project-name": "demo",
            "-oo os-project-domain-name": "Default",
        }

    @property
    def attaching(self) -> dict[str, str]:
        return {
            **self.login,
            "-oo server-id": self.server,
            "-oo dev-disk-by-id": str(self.state.by_id),
        }


@contextmanager
def running(folder: Path) -> Iterator[Cloud]:
    from tests.fakes.openstack.server import State, serve

    folder.mkdir(exist_ok=True)
    signed = certificate(folder)
    password = folder / "password"
    password.write_text("secret word\n")
    state = State(folder)
    with serve(state, signed) as server:
        yield Cloud(state, server.address, signed.cafile, password, state.add_server())
