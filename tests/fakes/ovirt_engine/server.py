"""The engine's HTTPS: its single sign-on, and its REST API in XML, as far as v2v uses them."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lxml import etree
from lxml.builder import E

from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.ovirt_engine.model import Disk, Domain, Model, Refusal, Transfer, Vm

API = "/ovirt-engine/api"
TOKEN = "a-token-of-the-tests"


class Server(QuietServer):
    def __init__(self, model: Model, context: ssl.SSLContext, port: int) -> None:
        super().__init__(Handler, context, port)
        self.model = model
        self.requests: list[str] = []


class Handler(QuietHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if parts.path.endswith("/sso/oauth/token"):
            self._send(200, json.dumps(self._token(parse_qs(body.decode()))), "application/json")
        elif parts.path.endswith("/sso-logout"):
            self._send(200, "{}", "application/json")
        elif not parts.path.startswith(API):
            self._send(404, "<html>Not Found</html>", "text/html")
        else:
            self._answer_api(parts.path.removeprefix(API), parse_qs(parts.query), body)

    def _token(self, form: dict[str, list[str]]) -> dict[str, str]:
        model = self.server.model
        right = form.get("password") == [model.password] and form.get("username") == [model.user]
        model.logins.append(right)
        if right:
            return {"access_token": TOKEN}
        return {"error_code": "access_denied", "error": "Cannot authenticate user: wrong password"}

    def _answer_api(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        model, what = self.server.model, f"{self.command} {path}"
        self.server.requests.append(what)
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "no token")
            for prefix, why in model.faults.refused.items():
                if what.startswith(prefix):
                    raise Refusal(409, why)
            with model.lock:
                node = etree.fromstring(body) if body.strip() else None
                status, answer = 200, self._route(path, query.get("search", [""])[0], node)
        except Refusal as exc:
            status = exc.status
            answer = E.fault(E.reason("Operation Failed"), E.detail(exc.detail))
        if model.faults.before_answer is not None:
            model.faults.before_answer(what)
        self._send(status, etree.tostring(answer).decode(), "application/xml")

    def _route(self, path: str, search: str, node: Any) -> Any:
        for method, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                return action(self.server.model, *found.groups(), search=search, node=node)
        raise Refusal(404, f"{self.command} {path}")

    def _send(self, status: int, text: str, kind: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


Action = Callable[..., Any]
ROUTES: list[tuple[str, str, Action]] = []


def route(method: str, pattern: str) -> Callable[[Action], Action]:
    def keep(action: Action) -> Action:
        ROUTES.append((method, pattern.replace("ID", "([^/]+)"), action))
        return action

    return keep


@route("GET", "/clusters")
def _clusters(model: Model, **_: Any) -> Any:
    return E.clusters(
        *(
            E.cluster(
                E.name(one.name),
                E.cpu(E.architecture(one.arch)),
                E.version(E.major(str(one.major)), E.minor(str(one.minor))),
                *([E.data_center(id=one.center)] if one.center else []),
                id=one.id,
            )
            for one in model.clusters
        )
    )


@route("GET", "/clusters/ID/networks")
def _networks(model: Model, cluster: str, **_: Any) -> Any:
    return E.networks(*(E.network(E.name(name), id=id) for id, name in model.networks.items()))


@route("GET", "/vnicprofiles")
def _profiles(model: Model, **_: Any) -> Any:
    return E.vnic_profiles(
        *(
            E.vnic_profile(E.name(name), E.network(id=network), id=id)
            for id, (name, network) in model.profiles.items()
        )
    )


@route("GET", "/datacenters/ID/storagedomains")
def _attached(model: Model, center: str, **_: Any) -> Any:
    return E.storage_domains(*(_domain(one) for one in model.domains if one.attached))


@route("GET", "/storagedomains")
def _domains(model: Model, **_: Any) -> Any:
    return E.storage_domains(*(_domain(one) for one in model.domains))


def _domain(one: Domain) -> Any:
    return E.storage_domain(
        E.name(one.name),
        E.type(one.type),
        E.storage(E.type(one.storage)),
        E.available(str(one.available)),
        *([E.status(one.status)] if one.attached else []),
        id=one.id,
    )


@route("GET", "/hosts")
def _hosts(model: Model, search: str, **_: Any) -> Any:
    found = search == f"hw_id={model.vdsm_id}"
    host = E.host(E.name("host1"), E.status("up"), E.cluster(id=model.clusters[0].id), id="h1")
    return E.hosts(*([host] if found else []))


@route("GET", "/disks")
def _disks(model: Model, search: str, **_: Any) -> Any:
    wanted = re.fullmatch('description="(.*)"', search)
    return E.disks(
        *(_disk(one) for one in model.disks.values() if wanted and one.description == wanted[1])
    )


@route("POST", "/disks")
def _add_disk(model: Model, node: Any, **_: Any) -> Any:
    return _disk(model.add_disk(node))


@route("GET", "/disks/ID")
def _get_disk(model: Model, name: str, **_: Any) -> Any:
    return _disk(model.look_at_disk(name))


@route("DELETE", "/disks/ID")
def _remove_disk(model: Model, name: str, **_: Any) -> Any:
    model.remove_disk(name)
    return E.action(E.status("complete"))


def _disk(one: Disk) -> Any:
    return E.disk(
        E.name(one.name),
        E.description(one.description),
        E.format(one.format),
        E.provisioned_size(str(one.size)),
        E.actual_size(str(one.path.stat().st_blocks * 512 if one.path.exists() else 0)),
        E.sparse(str(one.sparse).lower()),
        E.status(one.status),
        E.image_id(one.image_id),
        E.storage_domains(E.storage_domain(id=one.domain)),
        id=one.id,
    )


@route("GET", "/imagetransfers")
def _transfers(model: Model, **_: Any) -> Any:
    return E.image_transfers(*(_transfer(model, one) for one in model.transfers.values()))


@route("POST", "/imagetransfers")
def _add_transfer(model: Model, node: Any, **_: Any) -> Any:
    return _transfer(model, model.add_transfer(node))


@route("GET", "/imagetransfers/ID")
def _get_transfer(model: Model, name: str, **_: Any) -> Any:
    return _transfer(model, model.look_at_transfer(name))


@route("POST", "/imagetransfers/ID/(finalize|cancel|pause|resume|extend)")
def _act(model: Model, name: str, action: str, **_: Any) -> Any:
    model.act_on_transfer(name, action)
    return E.action(E.status("complete"))


def _transfer(model: Model, one: Transfer) -> Any:
    urls = []
    if one.ticket:
        direct, proxy = model.daemon.url(one.ticket), model.proxy.url(one.ticket)
        urls = [E.transfer_url(direct), E.proxy_url(proxy)]
    return E.image_transfer(
        E.phase(one.phase),
        E.direction("upload"),
        E.image(id=one.disk),
        E.host(id=one.host or "h1"),
        *urls,
        id=one.id,
    )


@route("GET", "/vms")
def _vms(model: Model, search: str, **_: Any) -> Any:
    return E.vms(*(_vm(one) for one in model.vms.values() if search == f"name={one.name}"))


@route("POST", "/vms")
def _add_vm(model: Model, node: Any, **_: Any) -> Any:
    return _vm(model.add_vm(node))


@route("GET", "/vms/ID")
def _get_vm(model: Model, name: str, **_: Any) -> Any:
    return _vm(model.look_at_vm(name))


@route("POST", "/vms/ID/start")
def _start_vm(model: Model, name: str, **_: Any) -> Any:
    model.look_at_vm(name)
    model.vms[name].status = "up"
    return E.action(E.status("complete"))


@route("GET", "/vms/ID/diskattachments")
def _attachments(model: Model, name: str, **_: Any) -> Any:
    return E.disk_attachments(*(_attachment(one) for one in model.look_at_vm(name).disks))


@route("POST", "/vms/ID/diskattachments")
def _attach(model: Model, name: str, node: Any, **_: Any) -> Any:
    disk = node.find("disk").get("id")
    model.attach(name, disk, node.findtext("interface"), node.findtext("bootable"))
    return _attachment(disk)


def _attachment(disk: str) -> Any:
    return E.disk_attachment(E.disk(id=disk), id=disk)


@route("GET", "/vms/ID/nics")
def _nics(model: Model, name: str, **_: Any) -> Any:
    return E.nics(
        *(
            E.nic(
                E.mac(E.address(card.mac)),
                *([E.vnic_profile(id=card.profile)] if card.profile else []),
                id=card.id,
            )
            for card in model.look_at_vm(name).cards
        )
    )


@route("PUT", "/vms/ID/nics/ID")
def _set_nic(model: Model, name: str, card: str, node: Any, **_: Any) -> Any:
    found = next(one for one in model.look_at_vm(name).cards if one.id == card)
    found.profile = node.find("vnic_profile").get("id")
    return E.nic(id=card)


def _vm(one: Vm) -> Any:
    return E.vm(E.name(one.name), E.status(one.status), id=one.id)


@contextmanager
def serve(model: Model, certificate: Path, port: int = 0) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with running(Server(model, context, port)) as server:
        yield server
