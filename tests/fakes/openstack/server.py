"""A small OpenStack: Keystone, Cinder, Nova and Glance behind one HTTPS server, in a thread.

What it knows is in a `State`, which tests look at and change, also to make things fail.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.vsphere.certificates import Certificate

PROJECT = "0123456789abcdef0123456789abcdef"
OTHER_PROJECT = "fedcba9876543210fedcba9876543210"  # of the same user, who has nothing there
PROJECTS = {"demo": PROJECT, "other": OTHER_PROJECT}


class Refusal(Exception):
    """An answer that is an error. Without a status the connection is just closed."""

    def __init__(self, status: int | None, text: str = "refused") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Body:
    """What comes with a request, to its end."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, size: int | None = None) -> bytes:
        data = self._stream.read(self._left if size is None else min(size, self._left))
        self._left -= len(data)
        return data

    def drain(self) -> None:
        while self._left and self.read(1024 * 1024):
            pass


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    stream: Body
    base: str  # https://127.0.0.1:PORT

    @property
    def length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def json(self) -> Any:
        return json.loads(self.stream.read())


@dataclass
class State:
    folder: Path  # `volumes` and `by-id` are made in it
    users: dict[str, str] = field(default_factory=lambda: {"user": "secret word"})
    credentials: dict[str, str] = field(default_factory=lambda: {"credential-1": "other secret"})
    tokens: dict[str, str | None] = field(default_factory=dict)  # and whose project
    services: set[str] = field(default_factory=lambda: {"volumev3", "compute", "image"})
    types: tuple[str, ...] = ("fast", "slow", "secret")
    encrypted: tuple[str, ...] = ("secret",)  # types
    most_volumes: int = 10
    most_gigabytes: int = 100
    formats: tuple[str, ...] = ("raw", "qcow2")  # of images
    most_images: int = 10  # -1: any
    most_mib: int = -1  # of all images
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)  # of images
    deleted: list[str] = field(default_factory=list)
    created_status: str = "available"  # what a new volume becomes
    attach_works: bool = True
    device_appears: bool = True
    undeletable: set[str] = field(default_factory=set)  # volumes and images
    held: set[str] = field(default_factory=set)  # volumes that Nova does not detach
    remembered: dict[str, int] = field(default_factory=dict)  # detached, but not yet for Nova
    spoil_uploads: bool = False  # what is stored differs from what was sent
    flood: str | None = None  # what has this in its path is answered without an end
    faults: list[tuple[str, str, int | None]] = field(default_factory=list)  # used up one by one
    seen: list[str] = field(default_factory=list)  # METHOD PATH of the requests
    watch: Callable[[str], None] = lambda line: None  # before METHOD PATH is done
    done: Callable[[str], None] = lambda line: None  # after it, before it is answered
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def by_id(self) -> Path:
        return self.folder / "by-id"

    def add_server(self, status: str = "ACTIVE") -> str:
        identifier = str(uuid.uuid4())
        self.servers[identifier] = {"id": identifier, "name": "converter", "status": status}
        return identifier

    def fail(self, method: str, path: str, status: int | None, *, times: int = 1) -> None:
        """Requests whose path matches are answered so; `status` None: not at all."""
        self.faults += [(method, path, status)] * times


PAGE = 2  # what one answer lists


def paged(found: list[dict[str, Any]], request: Request) -> tuple[list[dict[str, Any]], str]:
    """Those behind the marker, and the query that asks for what follows them, if anything does."""
    marker = request.query.get("marker")
    first = [one["id"] for one in found].index(marker) + 1 if marker else 0
    page, left = found[first : first + PAGE], found[first + PAGE :]
    return page, urlencode({**request.query, "marker": page[-1]["id"]}) if left else ""


Action = Callable[..., tuple[int, Any]]
ROUTES: list[tuple[str, re.Pattern[str], Action]] = []


def route(method: str, pattern: str) -> Callable[[Action], Action]:
    """The action gets the state, the request and the groups of the pattern."""

    def add(action: Action) -> Action:
        ROUTES.append((method, re.compile(pattern), action))
        return action

    return add


def new_id() -> str:
    return str(uuid.uuid4())


class Handler(QuietHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def _answer(self) -> None:
        state, parts = self.server.state, urlsplit(self.path)
        line = f"{self.command} {parts.path}"
        query = {key: words[0] for key, words in parse_qs(parts.query).items()}
        body_sent = Body(self.rfile, int(self.headers.get("Content-Length") or 0))
        request = Request(
            self.command, parts.path, query, self.headers, body_sent, self.server.address
        )
        if state.flood and state.flood in parts.path:
            self._flood()
            return
        state.watch(line)
        with state.lock:
            state.seen.append(line)
        try:
            status, body = self._act(state, request)
            state.done(line)
        except Refusal as exc:
            if exc.status is None:
                self.close_connection = True
                self.connection.close()
                return
            body_sent.drain()
            status, body = exc.status, {"error": {"message": exc.text, "code": exc.status}}
        self._send(status, body)

    def _flood(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError):  # whoever has enough goes away
            while True:
                self.wfile.write(b" " * 65536)

    def _act(self, state: State, request: Request) -> tuple[int, Any]:
        with state.lock:
            for fault in state.faults:
                method, pattern, status = fault
                if method == request.method and re.search(pattern, request.path):
                    state.faults.remove(fault)
                    raise Refusal(status, "a fault of the test")
        for method, expression, action in ROUTES:
            found = expression.fullmatch(request.path)
            if method == request.method and found:
                self._check_token(state, request)
                return action(state, request, *found.groups())
        raise Refusal(404, f"no route for {request.method} {request.path}")

    def _check_token(self, state: State, request: Request) -> None:
        if request.path.startswith("/identity") or request.path.count("/") <= 2:
            return
        token = request.headers.get("X-Auth-Token")
        if token not in state.tokens:
            raise Refusal(401, "The request you have made requires authentication.")
        if state.tokens[token] != PROJECT:
            raise Refusal(404, "The resource could not be found.")

    def _send(self, status: int, body: Any) -> None:
        headers = {}
        if isinstance(body, tuple):
            body, headers = body
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for key, word in headers.items():
            self.send_header(key, word)
        if data:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(data)


class Server(QuietServer):
    def __init__(self, state: State, certificate: Certificate | None) -> None:
        super().__init__(Handler, certificate.context if certificate else None)
        self.state = state
        scheme = "http" if certificate is None else "https"
        self.address = f"{scheme}://127.0.0.1:{self.server_port}"


@contextmanager
def serve(state: State, certificate: Certificate | None) -> Iterator[Server]:
    from tests.fakes.openstack import cinder, glance, keystone, nova  # noqa: F401  their routes

    (state.folder / "volumes").mkdir(exist_ok=True)
    state.by_id.mkdir(exist_ok=True)
    with running(Server(state, certificate)) as server:
        yield server
