"""Compute v2.1: servers, and the volumes that are attached to them."""

from __future__ import annotations

from typing import Any

from tests.fakes.openstack import cinder
from tests.fakes.openstack.server import Refusal, Request, State, route

SERVER = r"([-0-9a-f]{36})"

LOOKS = 2  # at an attachment that is gone for Cinder, until it is gone for Nova


@route("GET", r"/compute/?(?:v2\.1/?)?")
def versions(state: State, request: Request) -> tuple[int, Any]:
    one = {
        "id": "v2.1",
        "status": "CURRENT",
        "version": "2.95",
        "min_version": "2.1",
        "links": [{"rel": "self", "href": f"{request.base}/compute/v2.1/"}],
    }
    if "v2.1" in request.path:
        return 200, {"version": one}
    return 200, {"versions": [one]}


@route("GET", f"/compute/v2.1/servers/{SERVER}")
def show(state: State, request: Request, server: str) -> tuple[int, Any]:
    return 200, {"server": _find(state, server)}


@route("GET", "/compute/v2.1/servers(?:/detail)?")
def listing(state: State, request: Request) -> tuple[int, Any]:
    name = request.query.get("name")
    found = [one for one in state.servers.values() if name in (None, one["name"])]
    return 200, {"servers": found}


@route("POST", f"/compute/v2.1/servers/{SERVER}/os-volume_attachments")
def attach(state: State, request: Request, server: str) -> tuple[int, Any]:
    _find(state, server)
    asked = request.json()["volumeAttachment"]
    if unknown := set(asked) - {"volumeId", "device", "tag", "delete_on_termination"}:
        raise Refusal(400, f"Additional properties are not allowed: {unknown}")
    volume = cinder.find(state, asked["volumeId"])
    if volume["status"] != "available":
        raise Refusal(400, f"Invalid volume: status is {volume['status']}")
    if volume["id"] in state.remembered:
        raise Refusal(400, f"Invalid volume: {volume['id']} is already attached to an instance")
    volume["wanted"] = server
    volume["status"] = "reserved"
    volume["next"] = ["attaching", "in-use" if state.attach_works else "available"]
    answer = {"id": volume["id"], "volumeId": volume["id"], "serverId": server, "device": None}
    return 200, {"volumeAttachment": answer}


@route("GET", f"/compute/v2.1/servers/{SERVER}/os-volume_attachments/{SERVER}")
def attachment(state: State, request: Request, server: str, volume: str) -> tuple[int, Any]:
    """Nova knows of it a little longer than Cinder."""
    attached = state.volumes.get(volume, {}).get("attachments", ())
    if volume in state.remembered:
        state.remembered[volume] -= 1
        if not state.remembered[volume]:
            del state.remembered[volume]
    elif server not in [one["server_id"] for one in attached]:
        raise Refusal(404, f"volume_id not found: {volume}")
    return 200, {"volumeAttachment": {"id": volume, "volumeId": volume, "serverId": server}}


@route("DELETE", f"/compute/v2.1/servers/{SERVER}/os-volume_attachments/{SERVER}")
def detach(state: State, request: Request, server: str, volume: str) -> tuple[int, Any]:
    found = cinder.find(state, volume)
    if server not in [one["server_id"] for one in found["attachments"]]:
        raise Refusal(404, f"volume_id not found: {volume}")
    if volume in state.held:
        raise Refusal(409, "Cannot 'detach_volume' while the instance is in task_state rebuilding")
    cinder.link(state, volume).unlink(missing_ok=True)
    state.remembered[volume] = LOOKS
    found["status"], found["next"] = "detaching", ["available"]
    return 202, None


def _find(state: State, server: str) -> dict[str, Any]:
    if server not in state.servers:
        raise Refusal(404, f"Instance {server} could not be found.")
    return state.servers[server]
