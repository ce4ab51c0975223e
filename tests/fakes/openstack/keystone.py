"""Identity v3: passwords and application credentials, and the catalog."""

from __future__ import annotations

from typing import Any

from tests.fakes.openstack.server import (
    PROJECT,
    PROJECTS,
    Refusal,
    Request,
    State,
    new_id,
    route,
)

DOMAIN = {"id": "default", "name": "Default"}
DOMAINS = ({"id": "default"}, {"name": "Default"})
DENIED = Refusal(401, "The request you have made requires authentication.")


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
    asked = request.json()["auth"]
    project = _authenticated(state, asked["identity"], asked.get("scope"))
    token = new_id()
    state.tokens[token] = project
    body = {
        "methods": asked["identity"]["methods"],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "user": {"id": "u1", "name": "user", "domain": DOMAIN},
        "roles": [{"id": "r1", "name": "member"}],
    }
    if project is not None:  # else the token is good for Keystone alone
        body["project"] = {"id": project, "name": "demo", "domain": DOMAIN}
        body["catalog"] = _catalog(state, request, project)
    return 201, ({"token": body}, {"X-Subject-Token": token})


def _authenticated(state: State, identity: dict[str, Any], scope: Any) -> str | None:
    """The id of the project that the token is for."""
    if "password" not in identity["methods"]:
        credential = identity["application_credential"]
        if state.credentials.get(credential["id"]) != credential["secret"] or scope:
            raise DENIED
        return PROJECT  # it is of one project
    user = identity["password"]["user"]
    if user["domain"] not in DOMAINS or state.users.get(user["name"]) != user["password"]:
        raise DENIED
    if scope is None:
        return None
    project = scope["project"]
    if project.get("id") in PROJECTS.values():
        return str(project["id"])
    if project.get("domain") not in DOMAINS or project.get("name") not in PROJECTS:
        raise DENIED
    return PROJECTS[project["name"]]


def _catalog(state: State, request: Request, project: str) -> list[dict[str, Any]]:
    addresses = {
        "identity": "/identity",
        "volumev3": f"/volume/v3/{project}",
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
