"""Image v2: images are queued, get their bytes with one PUT, and are active then."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.fakes.openstack.server import Refusal, Request, State, new_id, paged, route

IMAGE = r"([-0-9a-f]{36})"
CHUNK = 256 * 1024
NUMBERS = ("min_disk", "min_ram")
KNOWN = ("id", "name", "disk_format", "container_format", "visibility", "tags", "protected")
MIB = 1024**2


@route("GET", r"/image/?(?:versions|v2/?)?")
def versions(state: State, request: Request) -> tuple[int, Any]:
    one = {
        "id": "v2.15",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": f"{request.base}/image/v2/"}],
    }
    return 300, {"versions": [one]}


@route("GET", "/image/v2/schemas/image")
def schema(state: State, request: Request) -> tuple[int, Any]:
    formats = {"type": ["null", "string"], "enum": [None, *state.formats]}
    return 200, {"name": "image", "properties": {"disk_format": formats}}


@route("GET", "/image/v2/info/usage")
def usage(state: State, request: Request) -> tuple[int, Any]:
    count = {"usage": len(state.images), "limit": state.most_images}
    size = {"usage": _stored(state) // MIB, "limit": state.most_mib}
    return 200, {"usage": {"image_count_total": count, "image_size_total": size}}


def _stored(state: State) -> int:
    return sum(int(one.get("size") or 0) for one in state.images.values())


@route("POST", "/image/v2/images")
def create(state: State, request: Request) -> tuple[int, Any]:
    asked = request.json()
    identifier = asked.setdefault("id", new_id())
    if identifier in state.images or identifier in state.deleted:
        raise Refusal(409, f"Image ID {identifier} already exists!")
    for key, value in asked.items():
        if not isinstance(value, int if key in NUMBERS else str) and key not in KNOWN:
            raise Refusal(400, f"{value!r} is not of type 'string' for {key}")
    if asked.get("disk_format") not in state.formats or asked.get("container_format") != "bare":
        raise Refusal(400, "Invalid disk or container format")
    if 0 <= state.most_images <= len(state.images):
        raise Refusal(413, "Resource image_count_total is over limit")
    state.images[identifier] = {"visibility": "private", **asked, "status": "queued"}
    return 201, state.images[identifier]


@route("GET", "/image/v2/images")
def listing(state: State, request: Request) -> tuple[int, Any]:
    name = request.query.get("name")
    found = [one for one in state.images.values() if name in (None, one.get("name"))]
    page, following = paged(found, request)
    more = {"next": f"/v2/images?{following}"} if following else {}
    return 200, {"images": page, **more}


@route("GET", f"/image/v2/images/{IMAGE}")
def show(state: State, request: Request, image: str) -> tuple[int, Any]:
    return 200, _find(state, image)


@route("PUT", f"/image/v2/images/{IMAGE}/file")
def upload(state: State, request: Request, image: str) -> tuple[int, Any]:
    found = _find(state, image)
    if found["status"] != "queued":
        raise Refusal(409, f"Image status transition from {found['status']} to saving")
    if 0 <= state.most_mib < _stored(state) // MIB:
        raise Refusal(413, "Resource image_size_total is over limit")
    found["status"] = "saving"
    content = bytearray()
    while chunk := request.stream.read(CHUNK):
        content += chunk
        state.watch(f"upload {len(content)}")
    if len(content) < request.length:
        found["status"] = "queued"  # as Glance does when the client goes away
        raise Refusal(None)
    if state.spoil_uploads:
        content[len(content) // 2] ^= 1
    if image not in state.images:
        raise Refusal(410, "Image was deleted during upload")
    found["size"] = len(content)
    found["checksum"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    found["os_hash_algo"] = "sha512"
    found["os_hash_value"] = hashlib.sha512(content).hexdigest()
    state.contents[image] = bytes(content)
    found["status"] = "active"  # with all that is known of it: who sent it may have been killed
    return 204, None


@route("PATCH", f"/image/v2/images/{IMAGE}")
def patch(state: State, request: Request, image: str) -> tuple[int, Any]:
    found = _find(state, image)
    if request.headers["Content-Type"] != "application/openstack-images-v2.1-json-patch":
        raise Refusal(415, "Unsupported Content-Type")
    for change in request.json():
        key = change["path"].removeprefix("/")
        if change["op"] == "remove":
            found.pop(key)
        else:
            found[key] = change["value"]
    return 200, found


@route("DELETE", f"/image/v2/images/{IMAGE}")
def delete(state: State, request: Request, image: str) -> tuple[int, Any]:
    _find(state, image)
    if image in state.undeletable:
        raise Refusal(409, f"Image {image} could not be deleted because it is in use")
    del state.images[image]
    state.deleted.append(image)
    return 204, None


def _find(state: State, image: str) -> dict[str, Any]:
    if image not in state.images:
        raise Refusal(404, f"No image found with ID {image}")
    return state.images[image]
