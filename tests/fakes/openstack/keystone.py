"""Identity v3: passwords and application credentials, and the catalog."""

from __future__ import annotations

from typing import Any

from tests.fakes.openstack.server import PROJECT, Refusal, Request, State, new_id, route


def _version(request: Request) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "links": [{"rel": "self", "href": f"{request.base}/identity/v3/"}],
        "media-types": [],
    }


@route("GET", r"/identity/?")
def versions(state: State, request: Request) -> tuple[int, Any]:
    return 300, {"versions": {"values": [_version(request)]}}


@route("GET", r"/identity/v3/?")
def version(state: State, request: Request) -> tuple[int, Any]:
    return 200, {"version": _version(request)}


@route("POST", r"/identity/v3/auth/tokens")
def log_in(state: State, request: Request) -> tuple[int, Any]:
    identity = request.json()["auth"]["identity"]
    if "password" in identity["methods"]:
        user = identity["password"]["user"]
        good = state.users.get(user["name"]) == user["password"]
    else:
        credential = identity["application_credential"]
        good = state.credentials.get(credential["id"]) == credential["secret"]
    if not good:
        raise Refusal(401, "The request you have made requires authentication.")
    token = new_id()
    state.tokens.add(token)
    body = {
        "methods": identity["methods"],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "project": {"id": PROJECT, "name": "demo", "domain": {"id": "default", "name": "Default"}},
        "user": {"id": "u1", "name": "user", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r1", "name": "member"}],
        "catalog": _catalog(state, request),
    }
    return 201, ({"token": body}, {"X-Subject-Token": token})


def _catalog(state: State, request: Request) -> list[dict[str, Any]]:
    addresses = {
        "identity": "/identity",
        "volumev3": f"/volume/v3/{PROJECT}",
        "compute": "/compute/v2.1",
        "image": "/image",
    }
    return [
        {
            "type": kind,
            "name": kind,
            "id": kind,
            "endpoints": [
                {
                    "id": f"{kind}-public",
                    "interface": "public",
                    "region": "RegionOne",
                    "region_id": "RegionOne",
                    "url": request.base + path,
                }
            ],
        }
        for kind, path in addresses.items()
        if kind == "identity" or kind in state.services
    ]
