"""A real ovirt-imageio daemon on this host, with TLS, whose transfers need no engine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.vsphere.certificates import certificate
from tests.places import reserved_port
from v2v.outputs._ovirt.places import Transfer

START_SECONDS = 120.0
CONFIG = """\
[daemon]
drop_privileges = false
systemd_enable = false
run_dir = {folder}
poll_interval = 0.05
[tls]
enable = {tls}
key_file = {key}
cert_file = {key}
[remote]
host = 127.0.0.1
port = {port}
[local]
enable = {local}
socket = {folder}/local
[control]
transport = unix
socket = {folder}/control
[handlers]
keys = stderr
[logger_root]
level = INFO
handlers = stderr
"""


class Daemon:
    """It runs from `start` to `stop`; tickets are forgotten then, as they are by oVirt's."""

    def __init__(self, folder: Path, port: int, *, tls: bool, local: bool) -> None:
        """`local`: offer the Unix socket, which the client takes when it is there."""
        self.folder = folder
        self.port = port
        self.tls = tls
        self._local = local
        self._certificate = certificate(folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def cafile(self) -> Path:
        return self._certificate.cafile

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def closed_log(self) -> str:
        """The log, when all connections are closed: that is written a moment after clients are."""
        deadline = time.monotonic() + START_SECONDS
        while (log := self.log).count("OPEN connection=") > log.count("CLOSE connection="):
            assert time.monotonic() < deadline, log
            time.sleep(0.01)
        return log

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, ticket: str, *, port: int | None = None) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{port or self.port}/images/{ticket}"

    def transfer(self, url: str, size: int, *, port: int | None = None, **ticket: Any) -> Transfer:
        """A ticket for `file:///PATH` (raw) or `nbd:unix:/SOCKET`; `port` of a wire to us."""
        name = self.add_ticket(url, size, **ticket)
        return Transfer(url=self.url(name, port=port), cafile=self.cafile, size=size)

    def add_ticket(self, url: str, size: int, *, name: str | None = None, **more: Any) -> str:
        """`more`: what else a ticket has, as `timeout` (seconds) and `ops`."""
        name = name or str(uuid.uuid4())
        ticket = {
            "uuid": name,
            "size": size,
            "url": url,
            "timeout": 300,
            "inactivity_timeout": 60,
            "sparse": True,
            "ops": ["read", "write"],
        }
        self._admin("add_ticket", {**ticket, **more})
        return name

    def cancel_ticket(self, name: str) -> None:
        """What the engine does when it pauses or ends a transfer."""
        self._admin("del_ticket", name)

    def expire_ticket(self, name: str, *, seconds: int = 0) -> None:
        """In `seconds`, unless a request ends: that prolongs it, also one that is under way now."""
        self._admin("mod_ticket", name, {"timeout": seconds})

    def ticket(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._admin("get_ticket", name)
        return found

    def _admin(self, call: str, *arguments: Any) -> Any:
        from ovirt_imageio import admin

        with admin.Client(admin.load_config(str(self.folder))) as client:
            return getattr(client, call)(*arguments)

    def start(self) -> None:
        """Always on the same port."""
        self._configure()
        (self.folder / "log").touch()
        seen = len(self.log)
        with (self.folder / "log").open("ab") as log:
            program = Path(sys.executable).parent / "ovirt-imageio"
            argv = [program, "-c", self.folder]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while "control.service listening" not in self.log[seen:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"ovirt-imageio does not start: {self.log}")
            time.sleep(0.01)

    def _configure(self) -> None:
        (self.folder / "conf.d").mkdir(exist_ok=True)
        text = CONFIG.format(
            folder=self.folder,
            tls=str(self.tls).lower(),
            local=str(self._local).lower(),
            key=self._certificate.file,
            port=self.port,
        )
        (self.folder / "conf.d" / "v2v.conf").write_text(text)

    def stop(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def imageio_daemon(*, tls: bool = True, local: bool = False) -> Iterator[Daemon]:
    """Its folder has a short name: a socket's path holds 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="imageio-") as folder, reserved_port() as port:
        daemon = Daemon(Path(folder), port, tls=tls, local=local)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
