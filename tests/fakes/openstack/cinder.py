"""Block storage v3. A volume is a file, which holds garbage when it is new, as thick ones may."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.fakes.openstack.server import PROJECT, Refusal, Request, State, new_id, paged, route

VOLUME = r"([-0-9a-f]{36})"
ROOT = f"/volume/v3/{PROJECT}"
GIB = 1024**3
DELETABLE = ("available", "error", "error_restoring", "error_extending", "error_managing")
KEY = re.compile(r"[-a-zA-Z0-9_:. ]{1,255}")
HEADER = 2 * 1024**2  # of LUKS
GARBAGE = 8 * 1024**2  # bytes at the beginning of a new volume, and the same at its end


@route("GET", r"/volume/?(?:v3/?)?")
def versions(state: State, request: Request) -> tuple[int, Any]:
    one = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": "3.70",
        "min_version": "3.0",
        "links": [{"rel": "self", "href": f"{request.base}/volume/v3/"}],
    }
    return 300, {"versions": [one]}


@route("GET", f"{ROOT}/limits")
def limits(state: State, request: Request) -> tuple[int, Any]:
    absolute = {
        "maxTotalVolumes": state.most_volumes,
        "totalVolumesUsed": len(state.volumes),
        "maxTotalVolumeGigabytes": state.most_gigabytes,
        "totalGigabytesUsed": sum(one["size"] for one in state.volumes.values()),
    }
    return 200, {"limits": {"rate": [], "absolute": absolute}}


@route("GET", f"{ROOT}/types")
def types(state: State, request: Request) -> tuple[int, Any]:
    return 200, {"volume_types": [{"id": f"id-{name}", "name": name} for name in state.types]}


@route("GET", f"{ROOT}/types/([^/]+)")
def volume_type(state: State, request: Request, name: str) -> tuple[int, Any]:
    if name.removeprefix("id-") not in state.types or not name.startswith("id-"):
        raise Refusal(404, f"Volume type {name} could not be found.")
    return 200, {"volume_type": {"id": name, "name": name.removeprefix("id-")}}


@route("POST", f"{ROOT}/volumes")
def create(state: State, request: Request) -> tuple[int, Any]:
    asked = request.json()["volume"]
    _check_texts(asked)
    if asked.get("volume_type") not in (None, *state.types):
        raise Refusal(404, "Volume type could not be found.")
    used = sum(one["size"] for one in state.volumes.values())
    if len(state.volumes) >= state.most_volumes or used + asked["size"] > state.most_gigabytes:
        raise Refusal(413, "VolumeLimitExceeded: Maximum number of volumes allowed exceeded")
    volume = {
        "id": new_id(),
        "name": asked.get("name"),
        "description": asked.get("description"),
        "size": asked["size"],
        "status": "creating",
        "next": [state.created_status],
        "volume_type": asked.get("volume_type") or "fast",
        "availability_zone": asked.get("availability_zone", "nova"),
        "metadata": _words(asked.get("metadata") or {}),
        "bootable": "false",
        "encrypted": asked.get("volume_type") in state.encrypted,
        "attachments": [],
        "volume_image_metadata": {},
    }
    state.volumes[volume["id"]] = volume
    fill(state, volume)
    return 202, {"volume": _shown(volume)}


@route("GET", f"{ROOT}/volumes/detail")
def listing(state: State, request: Request) -> tuple[int, Any]:
    page, following = paged(list(state.volumes.values()), request)
    answer: dict[str, Any] = {"volumes": [_shown(one) for one in page]}
    if following:
        href = f"{request.base}{ROOT}/volumes/detail?{following}"
        answer["volumes_links"] = [{"rel": "next", "href": href}]
    return 200, answer


@route("GET", f"{ROOT}/volumes/{VOLUME}")
def show(state: State, request: Request, volume: str) -> tuple[int, Any]:
    found = find(state, volume)
    answer = _shown(found)
    if found["next"]:  # what is shown now has changed by the next look
        found["status"] = found["next"].pop(0)
        if found["status"] == "in-use":
            connect(state, found)
        if found["status"] == "available":
            found["attachments"] = []
        if found["status"] == "gone":
            del state.volumes[volume]
            state.deleted.append(volume)
            (state.folder / "volumes" / volume).unlink()
    return 200, {"volume": answer}


@route("PUT", f"{ROOT}/volumes/{VOLUME}")
def update(state: State, request: Request, volume: str) -> tuple[int, Any]:
    found, asked = find(state, volume), request.json()["volume"]
    if unknown := set(asked) - {"name", "description", "metadata"}:
        raise Refusal(400, f"Additional properties are not allowed: {unknown}")
    _check_texts(asked)
    if "metadata" in asked:
        asked["metadata"] = _words(asked["metadata"])
    found.update(asked)
    return 200, {"volume": _shown(found)}


@route("DELETE", f"{ROOT}/volumes/{VOLUME}")
def delete(state: State, request: Request, volume: str) -> tuple[int, Any]:
    found = find(state, volume)
    if found["status"] not in DELETABLE or volume in state.undeletable:
        raise Refusal(400, f"Invalid volume: status must be available, not {found['status']}")
    found["status"], found["next"] = "deleting", ["gone"]
    return 202, None


@route("POST", f"{ROOT}/volumes/{VOLUME}/action")
def act(state: State, request: Request, volume: str) -> tuple[int, Any]:
    found = find(state, volume)
    ((action, asked),) = request.json().items()
    if action == "os-set_bootable":
        found["bootable"] = str(asked["bootable"]).lower()
        return 200, None
    if action == "os-set_image_metadata":
        found["volume_image_metadata"].update(_words(asked["metadata"]))
        return 200, {"metadata": found["volume_image_metadata"]}
    if action == "os-extend":
        if found["status"] != "available" or asked["new_size"] <= found["size"]:
            raise Refusal(400, "Invalid volume: it cannot be extended")
        found.update(size=asked["new_size"], status="extending", next=["available"])
        fill(state, found)
        return 202, None
    raise Refusal(400, f"There is no such action: {action}")


def fill(state: State, volume: dict[str, Any]) -> None:
    """The server sees what encryption leaves of it."""
    size = volume["size"] * GIB - (HEADER if volume["encrypted"] else 0)
    path = state.folder / "volumes" / volume["id"]
    path.write_bytes(b"\xa5" * GARBAGE)
    os.truncate(path, size - GARBAGE)
    with path.open("ab") as file:
        file.write(b"\xa5" * GARBAGE)


def find(state: State, volume: str) -> dict[str, Any]:
    if volume not in state.volumes:
        raise Refusal(404, f"Volume {volume} could not be found.")
    return state.volumes[volume]


def connect(state: State, volume: dict[str, Any]) -> None:
    """It shows up in the server."""
    server = volume["wanted"]
    volume["attachments"] = [{"server_id": server, "id": new_id(), "volume_id": volume["id"]}]
    if state.device_appears:
        link(state, volume["id"]).symlink_to(state.folder / "volumes" / volume["id"])


def link(state: State, volume: str) -> Any:
    return state.by_id / f"virtio-{volume[:20]}"


def _check_texts(asked: dict[str, Any]) -> None:
    for key in ("name", "description"):
        if len(asked.get(key) or "") > 255:
            raise Refusal(400, f"Invalid input for field/attribute {key}")


def _words(given: dict[str, Any]) -> dict[str, str]:
    for key, word in given.items():
        if not isinstance(word, str) or len(word) > 255 or not KEY.fullmatch(key):
            raise Refusal(400, f"Invalid input for field/attribute {key}")
    return dict(given)


def _shown(volume: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in volume.items() if key not in ("next", "wanted")}
