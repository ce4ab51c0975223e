"""Names as vSphere writes them: of things in its inventory, and of files on datastores."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from v2v.errors import SourceError
from v2v.inputs._vmware import VOLUMES

_ENCODED = re.compile(r"%(25|2f|5c)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CHARACTERS = {"25": "%", "2f": "/", "5c": "\\"}
SHOWN = 200  # characters of a name in a message


def plain_name(name: str) -> str:
    """A name of the inventory as people gave it: only %, / and \\ are encoded there.

    https://developer.broadcom.com/xapis/vsphere-web-services-api: ManagedEntity.name.
    """
    return _ENCODED.sub(lambda match: _CHARACTERS[match[1].lower()], name)


def store_path(text: str, datastores: Iterable[str] = ()) -> str:
    """/vmfs/volumes/DS/DIR/FILE of "[DS] DIR/FILE".

    A name may hold brackets itself, so that the longest of `datastores` that fits counts; without
    one it ends at the first bracket. SourceError for what is no such path, or leads elsewhere.
    """
    name, path = _split(text, datastores)
    if not name and path.startswith("/"):  # "[] /vmfs/volumes/UUID/DIR/FILE"
        found = posixpath.normpath(path)
        fine = found.startswith(f"{VOLUMES}/")
    else:
        found = posixpath.normpath(f"{VOLUMES}/{name}/{path}")
        fine = found.startswith(f"{VOLUMES}/{name}/")
    if not fine or not path or _CONTROL.search(found) or name in (".", "..") or "/" in name:
        raise SourceError(
            f"{text[:SHOWN]!r} is no path on a datastore",
            id="vsphere-path",
            hint="a disk of the VM has it; does the VM start in VMware?",
        )
    return found


def _split(text: str, datastores: Iterable[str]) -> tuple[str, str]:
    fits = [name for name in datastores if name and text.startswith(f"[{name}] ")]
    if fits:
        name = max(fits, key=len)
        return name, text[len(name) + 3 :]
    name, bracket, path = text.removeprefix("[").partition("]")
    return (name, path.lstrip(" ")) if bracket and text.startswith("[") else ("", "")


def folder_of(path: str) -> str:
    return posixpath.dirname(path)
