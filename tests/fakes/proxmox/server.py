"""The HTTPS server: logging in, and finding what answers a path."""

from __future__ import annotations

import json
import re
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.proxmox import uploads, vms
from tests.fakes.proxmox.state import TICKET_SECONDS, ApiError, State, sdn_path

BASE = "/api2/json/"
SEEN_STORAGE = ("Datastore.Audit", "Datastore.AllocateSpace")


class Server(QuietServer):
    def __init__(self, state: State, context: ssl.SSLContext) -> None:
        super().__init__(Handler, context)
        self.state = state


class ProxmoxServer(State):
    """`address` is what -oc gets."""

    port = 0

    @property
    def address(self) -> str:
        return f"https://root@pam@127.0.0.1:{self.port}"

    @contextmanager
    def serve(self, context: ssl.SSLContext) -> Iterator[ProxmoxServer]:
        with running(Server(self, context)) as server:
            self.port = server.server_port
            try:
                yield self
            finally:
                self.faults.open()


class Handler(QuietHandler):
    server: Server

    def _answer(self) -> None:
        state, path = self.server.state, unquote(urlsplit(self.path).path)
        state.requests.append(f"{self.command} {path.removeprefix(BASE)}")
        try:
            if state.faults.redirect:
                self._send(302, "Found", b"", {"Location": state.faults.redirect})
            elif path.removeprefix(BASE) in state.faults.answers:
                self._form()
                self._send(200, "OK", state.faults.answers[path.removeprefix(BASE)])
            else:
                data = self._do(state, path.removeprefix(BASE))
                self._send(200, "OK", json.dumps({"data": data}).encode())
        except ApiError as exc:
            body = {"data": None, **({"errors": exc.errors} if exc.errors else {})}
            self._send(exc.status, exc.reason, json.dumps(body).encode(), close=True)
        except uploads.Cut:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _answer

    def _send(
        self,
        status: int,
        reason: str,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        close: bool = False,
    ) -> None:
        self.send_response(status, reason)
        for name, word in (headers or {}).items():
            self.send_header(name, word)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        if self.server.state.faults.cookie:
            self.send_header("Set-Cookie", self.server.state.faults.cookie)
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _do(self, state: State, path: str) -> Any:
        query = dict(parse_qsl(urlsplit(self.path).query))
        if self.command == "POST" and path == "access/ticket":
            return _ticket(state, self._form())
        user = self._user(state)
        if match := re.fullmatch(r"nodes/([^/]+)/storage/([^/]+)/upload", path):
            self.close_connection = True
            return uploads.receive(
                state, lambda: self._user(state), match[1], match[2], self.headers, self.rfile
            )
        given = self._form() if self.command == "POST" else query
        for method, pattern, action in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return action(state, user, given, *match.groups())
        raise ApiError(501, f"Method '{self.command} /{path}' not implemented")

    def _form(self) -> dict[str, str]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return dict(parse_qsl(body.decode(), keep_blank_values=True))

    def _user(self, state: State) -> str:
        token = re.fullmatch(r"PVEAPIToken=([^=]+)=(.+)", self.headers.get("Authorization", ""))
        if token:
            if state.tokens.get(token[1]) == token[2]:
                return token[1]
            raise ApiError(401, "invalid token value!")
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("PVEAuthCookie")
        user, end = state.tickets.get(cookie.value if cookie else "", ("", 0.0))
        if not user:
            raise ApiError(401, "No ticket")
        if state.clock > end:
            raise ApiError(401, "permission denied - invalid PVE ticket")
        if self.command != "GET" and self.headers.get("CSRFPreventionToken") != f"csrf-{user}":
            raise ApiError(401, "Permission denied - invalid csrf token")
        return user


def _ticket(state: State, given: dict[str, str]) -> dict[str, Any]:
    user = given["username"]
    if state.passwords.get(user) != given["password"]:
        raise ApiError(401, "authentication failure")
    ticket = f"PVE-{secrets.token_hex(8)}"
    state.tickets[ticket] = user, state.clock + TICKET_SECONDS
    answer = {"username": user, "ticket": ticket, "CSRFPreventionToken": f"csrf-{user}"}
    return {**answer, "NeedTFA": 1} if user.startswith("tfa@") else answer


def _nodes(state: State, user: str, given: dict[str, str]) -> Any:
    return [{"node": name, "status": status, "cpu": 0.1} for name, status in state.nodes.items()]


def _storages(state: State, user: str, given: dict[str, str], node: str) -> Any:
    return [
        {
            "storage": name,
            "type": one.type,
            "content": one.content,
            "enabled": one.enabled,
            "active": one.active,
            "avail": one.avail if one.active else 0,
            "shared": 0,
        }
        for name, one in state.storages.items()
        if state.check_any(user, f"/storage/{name}", *SEEN_STORAGE)
    ]


def _network(state: State, user: str, given: dict[str, str], node: str) -> Any:
    return [
        {"iface": name, "type": "vnet" if name.startswith("vnet") else "bridge", "active": 1}
        for name in state.bridges
        if state.check_any(user, sdn_path(name), "SDN.Audit", "SDN.Use")
    ]


def _resources(state: State, user: str, given: dict[str, str]) -> Any:
    return [
        {"id": f"qemu/{vmid}", "vmid": vmid, "node": state.local, "type": "qemu"}
        | ({"name": config["name"]} if "name" in config else {})
        for vmid, config in dict(state.vms).items()
    ]


def _nextid(state: State, user: str, given: dict[str, str]) -> Any:
    if "vmid" in given:
        if int(given["vmid"]) in state.vms:
            wrong = {"vmid": f"VM {given['vmid']} already exists"}
            raise ApiError(400, "Parameter verification failed.", wrong)
        return given["vmid"]
    return str(next(vmid for vmid in range(100, 10**9) if vmid not in state.vms))


def _permissions(state: State, user: str, given: dict[str, str]) -> Any:
    path = given["path"]
    return {path: dict.fromkeys(state.privileges(user, path), 1)}


def _tasks(state: State, user: str, given: dict[str, str], node: str) -> Any:
    assert given["source"] == "active"
    node = state.local if node == "localhost" else node
    return [
        {"upid": task.upid, "type": task.kind, "user": task.user}
        for task in list(state.tasks.values())
        if task.status == "running"
        and task.upid.split(":")[1] == node
        and task.kind == given.get("typefilter", task.kind)
        and task.vmid == given.get("vmid", task.vmid)
    ]


def _task_status(state: State, user: str, given: dict[str, str], node: str, upid: str) -> Any:
    assert node == upid.split(":")[1], "another node does not know the task"
    if state.faults.silent_polls > 0:
        state.faults.silent_polls -= 1
        raise uploads.Cut
    if state.faults.gateway_polls > 0:
        state.faults.gateway_polls -= 1
        raise ApiError(595, "No route to host")
    task = state.tasks[upid]
    more = {"exitstatus": task.exitstatus} if task.status == "stopped" else {}
    return {"upid": upid, "status": task.status, "node": node, **more}


def _task_log(state: State, user: str, given: dict[str, str], node: str, upid: str) -> Any:
    lines = state.tasks[upid].log[: int(given.get("limit", 50))]
    return [{"n": number, "t": text} for number, text in enumerate(lines, 1)]


def _task_stop(state: State, user: str, given: dict[str, str], node: str, upid: str) -> Any:
    state.tasks[upid].stop.set()


def _content(state: State, user: str, given: dict[str, str], node: str, storage: str) -> Any:
    if not state.check_any(user, f"/storage/{storage}", *SEEN_STORAGE):
        raise ApiError(
            403, f"Permission check failed (/storage/{storage}, {'|'.join(SEEN_STORAGE)})"
        )
    if storage not in state.storages:
        raise ApiError(500, f"storage '{storage}' does not exist")
    folder = state.storages[storage].folder / "import"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        {"volid": f"{storage}:import/{path.name}", "content": "import", "format": path.suffix[1:]}
        for path in found
    ]


def _content_delete(
    state: State, user: str, given: dict[str, str], node: str, storage: str, volume: str
) -> Any:
    state.check(user, f"/storage/{storage}", "Datastore.Allocate")
    path = state.storages[storage].image(volume.removeprefix(f"{storage}:import/"))
    return state.start("imgdel", "", user, lambda task: path.unlink())


def _create(state: State, user: str, given: dict[str, str], node: str) -> Any:
    upid = vms.create(state, user, node, given)
    if state.faults.lost_creates > 0:
        state.faults.lost_creates -= 1
        raise uploads.Cut
    return upid


def _config(state: State, user: str, given: dict[str, str], node: str, vmid: str) -> Any:
    return vms.config(state, user, node, int(vmid))


def _remove(state: State, user: str, given: dict[str, str], node: str, vmid: str) -> Any:
    return vms.remove(state, user, int(vmid))


def _current(state: State, user: str, given: dict[str, str], node: str, vmid: str) -> Any:
    return {"vmid": vmid, "status": "running" if int(vmid) in state.running else "stopped"}


def _start(state: State, user: str, given: dict[str, str], node: str, vmid: str) -> Any:
    return vms.start(state, user, int(vmid))


def _version(state: State, user: str, given: dict[str, str]) -> Any:
    return {"version": state.version, "release": state.version[:3], "repoid": "1234"}


Route = tuple[str, str, Callable[..., Any]]
ROUTES: tuple[Route, ...] = (
    ("GET", "version", _version),
    ("GET", "nodes", _nodes),
    ("GET", "nodes/([^/]+)/storage", _storages),
    ("GET", "nodes/([^/]+)/network", _network),
    ("GET", "cluster/resources", _resources),
    ("GET", "cluster/nextid", _nextid),
    ("GET", "access/permissions", _permissions),
    ("GET", "nodes/([^/]+)/tasks", _tasks),
    ("GET", "nodes/([^/]+)/tasks/([^/]+)/status", _task_status),
    ("GET", "nodes/([^/]+)/tasks/([^/]+)/log", _task_log),
    ("DELETE", "nodes/([^/]+)/tasks/([^/]+)", _task_stop),
    ("GET", "nodes/([^/]+)/storage/([^/]+)/content", _content),
    ("DELETE", "nodes/([^/]+)/storage/([^/]+)/content/(.+)", _content_delete),
    ("POST", "nodes/([^/]+)/qemu", _create),
    ("GET", r"nodes/([^/]+)/qemu/(\d+)/config", _config),
    ("DELETE", r"nodes/([^/]+)/qemu/(\d+)", _remove),
    ("GET", r"nodes/([^/]+)/qemu/(\d+)/status/current", _current),
    ("POST", r"nodes/([^/]+)/qemu/(\d+)/status/start", _start),
)
