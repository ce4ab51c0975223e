"""Files of datastores over HTTPS: https://SERVER/folder/DIR/FILE?dcPath=DATACENTER&dsName=DATASTORE.

The way that needs nothing but what every vCenter and ESXi host has. Requests for parts of a file
go over several connections at once; nobody tells of holes.
"""

from __future__ import annotations

import http.client
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from urllib.parse import quote

from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.inputs._serve.http import CONTENT_RANGE, version
from v2v.inputs._vsphere import errors
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.web import Limits, Lost, Refused, Web
from v2v.texts import clean
from v2v.types import MiB

# Measured with tests.bench.folder: at 10 ms 8 requests of 4 MiB read 750 MiB/s, of 2 MiB 540; more
# of either gains little. Other tools found 8 connections to be the best of a real ESXi, too, and
# that a vCenter, which passes all on to a host, has buffers for 2 MiB.
CONNECTIONS = 8
DIRECT_REQUEST = 4 * MiB
VCENTER_REQUEST = 2 * MiB
ESXI_DATACENTER = "ha-datacenter"
PATH = re.compile("/vmfs/volumes/([^/]+)/(.+)")
OTHER_WAY = (
    "is there a proxy before the server, or a datastore in trouble? `v2v resume` tries again; "
    "-it ssh reads from the ESXi host itself"
)
LENGTH = re.compile(r"\d{1,19}", re.ASCII)


class FolderStore:
    """`datastores` gives names for what stands in paths instead of them: UUIDs."""

    parallel = CONNECTIONS
    request_size = DIRECT_REQUEST

    def __init__(self, web: Web, place: VspherePlace, datastores: Mapping[str, str]) -> None:
        self._web, self._place, self._datastores = web, place, datastores

    def open(self, path: str) -> FolderFile:
        path = self.real_path(path)
        url, name = self._url(path), f"{self._place.shown}{clean(path)}"
        try:
            return self._web.ask(
                "HEAD",
                url,
                {},
                lambda answer: FolderFile(self._web, url, name, answer, self.request_size),
            )
        except Refused as exc:
            raise _refused(name, exc) from exc
        except Lost as exc:
            raise errors.unreachable(self._place, str(exc)) from exc

    def real_path(self, path: str) -> str:
        """With the datastore's name. There are no links on VMFS that lead out of a datastore."""
        found = PATH.fullmatch(posixpath.normpath(path))
        if found is None:
            raise SourceError(
                f"{clean(path)} is no file of a datastore: /vmfs/volumes/DATASTORE/FOLDER/FILE",
                id="image-file-missing",
                hint="a disk on another kind of storage (RDM) cannot be read over HTTPS",
            )
        return f"/vmfs/volumes/{self._datastores.get(found[1], found[1])}/{found[2]}"

    def _url(self, path: str) -> str:
        found = PATH.fullmatch(path)
        assert found is not None  # noqa: S101
        datacenter = self._place.path or ESXI_DATACENTER
        query = f"dcPath={_quoted(datacenter)}&dsName={_quoted(found[1])}"
        return f"/folder/{_quoted(found[2])}?{query}"


class FolderFile:
    def __init__(
        self,
        web: Web,
        url: str,
        name: str,
        head: http.client.HTTPResponse,
        request_size: int,
    ) -> None:
        """`head` is the answer to HEAD."""
        self.name = name
        length = head.headers.get("Content-Length") or ""
        if LENGTH.fullmatch(length) is None:
            raise SourceError(
                f"{name}: the server does not tell the size of the file",
                id="source-read",
                hint=OTHER_WAY,
            )
        self.size = int(length)
        told = version(head.headers)
        self.version = f"{told} {length}" if told else ""
        self._head = head.headers
        self._web, self._url, self._request_size = web, url, request_size

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        for at in range(0, len(buffer), self._request_size):
            self._read_part(offset + at, buffer[at : at + self._request_size])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length)

    def _read_part(self, offset: int, part: memoryview) -> None:
        span = {"Range": f"bytes={offset}-{offset + len(part) - 1}"}

        def take(answer: http.client.HTTPResponse) -> None:
            self._check(answer, offset, len(part))
            _fill(part, answer)

        try:
            self._web.ask("GET", self._url, span, take)
        except Refused as exc:
            raise _refused(self.name, exc) from exc
        except Lost as exc:
            raise self._failed(offset, str(exc)) from exc

    def _check(self, answer: http.client.HTTPResponse, offset: int, length: int) -> None:
        """Whether it is the part that was asked for (RFC 9110, 14.4). What lies is not trusted."""
        if answer.status != 206:
            raise self._failed(offset, f"parts are asked for, and HTTP {answer.status} comes")
        told = answer.headers.get("Content-Range") or ""
        found = CONTENT_RANGE.fullmatch(told.strip())
        if found is None or int(found[1]) != offset or answer.length != length:
            raise self._failed(
                offset, f"{length} bytes are asked for, and {clean(told[:100])!r} comes"
            )
        if int(found[2]) != self.size:
            raise self._failed(
                offset, f"it had {self.size} bytes, and now has {found[2]}: is it written?"
            )
        if _is_another(self._head, answer.headers):
            raise SourceError(
                f"{self.name} has changed while it was read",
                id="source-changed-while-copied",
                hint="shut the VM down, then resume",
            )

    def _failed(self, offset: int, why: str) -> SourceError:
        return SourceError(
            f"{self.name}: reading at byte {offset} failed: {why}", id="source-read", hint=OTHER_WAY
        )


@contextmanager
def open_folder(
    place: VspherePlace,
    *,
    cancel: Cancel,
    through_vcenter: bool = False,
    datastores: Mapping[str, str] | None = None,
    connections: int = CONNECTIONS,
    request_size: int | None = None,
    limits: Limits | None = None,
) -> Iterator[FolderStore]:
    """The datastores of a vCenter's datacenter, or of an ESXi host, until the block ends.

    Nobody is asked before a file is opened. The place's path is that of the datacenter in the
    inventory, FOLDER/DATACENTER. `datastores`: see FolderStore.
    """
    web = Web(place, connections=connections, limits=limits or Limits(), cancel=cancel)
    store = FolderStore(web, place, datastores or {})
    store.parallel = connections
    store.request_size = request_size or (VCENTER_REQUEST if through_vcenter else DIRECT_REQUEST)
    try:
        with cancel.calling(web.break_off):
            yield store
    finally:
        web.close()


def _fill(part: memoryview, answer: http.client.HTTPResponse) -> None:
    done = 0
    while done < len(part):
        count = answer.readinto(part[done:])
        if count == 0:
            raise Lost(f"the connection was closed, after {done} of {len(part)} bytes")
        done += count


def _is_another(before: Message, now: Message) -> bool:
    """Whether it is another content than it was. See v2v.inputs._serve.http.version."""
    pairs = ((before.get(name), now.get(name)) for name in ("Last-Modified", "ETag"))
    one, other = next(filter(all, pairs), ("", ""))
    return one != other


def _quoted(text: str) -> str:
    """Slashes stay: they are between folders. One in a name of the inventory is %2f there."""
    return quote(text, safe="/", errors="surrogateescape")


def _refused(name: str, exc: Refused) -> SourceError:
    if exc.status == 404:
        return SourceError(
            f"{name} is not there",
            id="image-file-missing",
            hint="was the VM moved, or removed? Is the user allowed to browse the datastore?",
        )
    if exc.status in (409, 423, 500):
        return SourceError(
            f"{name} is locked, as it seems: {exc}",
            id="source-locked",
            hint="a VM that runs, a backup or a consolidation locks disks: shut the VM down, or "
            "read a snapshot with -io running=snapshot",
        )
    if exc.status in (401, 403):
        return SourceError(
            f"{name}: the server does not let this user read it: {exc}",
            id="source-unreadable",
            hint="the user needs the privileges Datastore.Browse and Datastore.FileManagement "
            "(low level file operations)",
        )
    return SourceError(
        f"{name}: the server does not give it: {exc}", id="source-read", hint=OTHER_WAY
    )
