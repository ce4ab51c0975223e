"""/folder of a vCenter or ESXi host: files of datastores by HTTP, in parts, to who has logged in.

What it does wrong when a test asks for that is `Faults`.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 1024 * 1024
COOKIE = re.compile(r'vmware_soap_session="?([^";]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with the answer to one GET."""

    status: int = 0  # this error rather than the content
    cut: int | None = None  # the connection is closed after so many bytes of the content
    shift: int = 0  # the part is sent from so many bytes behind where it was asked for
    size: int | None = None  # what Content-Range says that the file has
    whole: bool = False  # the whole file, status 200: Range is not understood
    hang: bool = False  # no answer, until the server ends


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a file."""

    method: str
    path: str  # decoded: VM/disk-flat.vmdk
    datastore: str
    start: int  # of the part; 0 without one
    length: int  # of the answer's content
    by_password: bool  # rather than by cookie
    status: int


@dataclass
class Folder:
    """What is served, who may have it, and what went on. Tests change and read it as they like."""

    user: str
    password: str
    datacenters: set[str]  # as dcPath names them
    datastores: dict[str, Path]
    sessions: set[str] = field(default_factory=set)  # values of cookies
    faults: deque[Fault] = field(default_factory=deque)  # of the next GETs, one each
    always: Fault | None = None  # of every GET after those
    locked: set[str] = field(default_factory=set)  # DIR/FILE that is answered with locked_status
    locked_status: int = 500
    asked: list[Asked] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)  # Fault.hang is met
    ended: threading.Event = field(default_factory=threading.Event)

    def expire_sessions(self) -> None:
        """Who was logged in, here or to the API, is not any more."""
        self.sessions.clear()

    @property
    def logins(self) -> int:
        return sum(one.by_password and one.status < 400 for one in self.asked)

    @property
    def bytes_sent(self) -> int:
        return sum(one.length for one in self.asked if one.method == "GET" and one.status < 400)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """A GET or HEAD of /folder/DIR/FILE?dcPath=DATACENTER&dsName=DATASTORE."""
        cookie = self._log_in(handler)
        if cookie is None:
            self._refuse(handler, 401, {"WWW-Authenticate": 'Basic realm="VMware HTTP server"'})
            return
        file = self._file(handler)
        fault = self._fault() if handler.command == "GET" else Fault()
        if fault.hang:
            self.hanging.set()
            self.ended.wait()
            handler.close_connection = True
        elif _asked_path(handler) in self.locked:
            self._refuse(handler, self.locked_status, cookie)
        elif fault.status or file is None:
            self._refuse(handler, fault.status or 404, cookie)
        else:
            self._send(handler, file, fault, cookie)

    def _log_in(self, handler: BaseHTTPRequestHandler) -> dict[str, str] | None:
        """The headers for who may read: a cookie for who gave a password. None: may not."""
        found = COOKIE.search(handler.headers.get("Cookie") or "")
        if found and found[1] in self.sessions:
            return {}
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {login}":
            return None
        session = secrets.token_hex(20)
        self.sessions.add(session)
        return {"Set-Cookie": f'vmware_soap_session="{session}"; Path=/; HttpOnly; Secure;'}

    def _file(self, handler: BaseHTTPRequestHandler) -> Path | None:
        query = parse_qs(urlsplit(handler.path).query)
        datastore = self.datastores.get(query.get("dsName", [""])[0])
        if datastore is None or query.get("dcPath", [""])[0] not in self.datacenters:
            return None
        file = datastore / _asked_path(handler)
        return file if file.is_file() else None

    def _fault(self) -> Fault:
        try:
            return self.faults.popleft()
        except IndexError:
            return self.always or Fault()

    def _send(
        self, handler: BaseHTTPRequestHandler, file: Path, fault: Fault, more: dict[str, str]
    ) -> None:
        told = file.stat()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        start, end = 0, told.st_size
        headers = {
            **more,
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(told.st_mtime, usegmt=True),
            "Content-Type": "application/octet-stream",
        }
        if asked and not fault.whole:
            start = int(asked[1]) + fault.shift
            end = min(int(asked[2] or end) + 1, end)
            if start >= end:
                self._refuse(handler, 416, more)
                return
            size = told.st_size if fault.size is None else fault.size
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = 206 if "Content-Range" in headers else 200
        self._head(handler, status, headers, start, end - start)
        if handler.command == "GET":
            stop = end if fault.cut is None else min(end, start + fault.cut)
            handler.close_connection = stop < end
            for piece in _pieces(file, start, stop):
                handler.wfile.write(piece)

    def _refuse(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]
    ) -> None:
        self._head(handler, status, headers, 0, 0)

    def _head(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        start: int,
        length: int,
    ) -> None:
        by_password = "Authorization" in handler.headers
        path, datastore = _asked_path(handler), _asked_datastore(handler)
        self.asked.append(
            Asked(handler.command, path, datastore, start, length, by_password, status)
        )
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()


def _asked_path(handler: BaseHTTPRequestHandler) -> str:
    return unquote(urlsplit(handler.path).path.removeprefix("/folder/"))


def _asked_datastore(handler: BaseHTTPRequestHandler) -> str:
    return parse_qs(urlsplit(handler.path).query).get("dsName", [""])[0]


def _pieces(file: Path, start: int, stop: int) -> Iterator[bytes]:
    """The part of a file; zeroes behind its end, were it cut meanwhile."""
    with file.open("rb") as stream:
        for at in range(start, stop, CHUNK):
            length = min(CHUNK, stop - at)
            yield os.pread(stream.fileno(), length, at).ljust(length, b"\0")
