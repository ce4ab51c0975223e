"""An SFTP server that does not tell the truth: of paramiko's parts, with one file, `/disk`.

with lying_sftp(folder, content, told=2 * len(content)) as server: ...
"""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from tests.sshd import Sshd


@dataclass(frozen=True, slots=True, kw_only=True)
class Lies:
    content: bytes
    told: int  # the size that it tells
    piece: int  # bytes that it answers with at most
    real_path: str
    refuses_open: int  # the code that an open ends with; 0 is none
    refuses_after: int  # bytes; a read beyond them fails
    named: tuple[str, ...]  # what it says is in the folder


@contextmanager
def lying_sftp(
    folder: Path,
    content: bytes,
    *,
    told: int | None = None,
    piece: int = 1 << 18,
    real_path: str = "/disk",
    refuses_open: int = 0,
    refuses_after: int = 1 << 62,
    named: tuple[str, ...] = (),
) -> Iterator[Sshd]:
    lies = Lies(
        content=content,
        told=len(content) if told is None else told,
        piece=piece,
        real_path=real_path,
        refuses_open=refuses_open,
        refuses_after=refuses_after,
        named=named,
    )
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    known, identity = folder / "known_hosts", folder / "client-key"
    known.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
    paramiko.ECDSAKey.generate().write_private_key_file(str(identity))
    transports: list[Any] = []

    def accept() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(end)
            transports.append(transport)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Server, lies)
            threading.Thread(target=_serve, args=(transport,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield Sshd(port, known, identity, 0, "root")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in transports:
            transport.close()


def _serve(transport: Any) -> None:
    transport.start_server(server=Door())
    channels = []  # one that nobody holds is closed
    while transport.is_active():
        channels.append(transport.accept(1))


class Door(paramiko.ServerInterface):  # type: ignore[misc]
    """Everybody may come in."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: object) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


class Server(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def __init__(self, server: object, lies: Lies) -> None:
        super().__init__(server)
        self.lies = lies

    def stat(self, path: str) -> Any:
        if path != "/disk":
            return paramiko.SFTP_NO_SUCH_FILE
        return _attributes(self.lies.told)

    def canonicalize(self, path: str) -> str:
        return self.lies.real_path

    def list_folder(self, path: str) -> Any:
        found = []
        for name in self.lies.named:
            one = _attributes(1)
            one.filename = name
            found.append(one)
        return found

    def open(self, path: str, flags: int, attr: object) -> Any:
        return self.lies.refuses_open or Handle(self.lies)


class Handle(paramiko.SFTPHandle):  # type: ignore[misc]
    def __init__(self, lies: Lies) -> None:
        super().__init__()
        self.lies = lies

    def read(self, offset: int, length: int) -> Any:
        if offset >= self.lies.refuses_after:
            return paramiko.SFTP_FAILURE
        return self.lies.content[offset : offset + min(length, self.lies.piece)]


def _attributes(size: int) -> Any:
    found = paramiko.SFTPAttributes()
    found.st_size = size
    found.st_mode = stat.S_IFREG | 0o600
    found.st_atime = found.st_mtime = 1_700_000_000
    return found
