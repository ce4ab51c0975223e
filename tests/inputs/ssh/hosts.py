"""Hosts that lack this or that, for tests of reading over SSH."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sshd import Sshd, sshd
from v2v.inputs._ssh.connection import Connection
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.inputs._ssh.program import Program

SHELL = ("cat", "sh", "env", "ls", "stat", "readlink", "printf", "xargs")
SECONDS = 30.0
SFTP = "internal-sftp"
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


@contextmanager
def lacking(folder: Path, *programs: str, before: str = "") -> Iterator[Sshd]:
    """A host with a shell and these programs only: names, or paths of files.

    `before`: what its shell does at each login.
    """
    programs_there = folder / "bin"
    programs_there.mkdir(parents=True)
    for name in (*SHELL, *programs):
        there = _sftp_server() if name == SFTP else shutil.which(name)
        assert there is not None, name
        (programs_there / Path(name).name).symlink_to(there)
    path = shlex.quote(str(programs_there))
    login = f'{before} exec env -i PATH={path} sh -c "$SSH_ORIGINAL_COMMAND"'
    with sshd(folder / "sshd", extra=f"ForceCommand {login}\n") as host:
        yield host


def after_its_end(monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """Whoever starts a program by this method of Connection gets it when it has ended."""
    method = getattr(Connection, start)

    def late(self: Connection, name: str) -> Program:
        program: Program = method(self, name)
        deadline = time.monotonic() + SECONDS
        while not program._channel.closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return program

    monkeypatch.setattr(Connection, start, late)


def _sftp_server() -> str:
    for path in SFTP_SERVERS:
        if Path(path).exists():
            return path
    pytest.skip("sftp-server is not installed")


def place_of(
    host: Sshd, *, port: int | None = None, reader: SshReader = SshReader.AUTO
) -> SshPlace:
    """`port` of a proxy in front of it."""
    known = host.known_hosts.with_name(f"known-{port or host.port}")
    known.write_text(host.known_hosts.read_text().replace(f":{host.port}", f":{port or host.port}"))
    return SshPlace(
        host="127.0.0.1",
        port=port or host.port,
        user=host.user,
        known_hosts=known,
        identity=host.identity,
        reader=reader,
    )
