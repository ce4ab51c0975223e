"""What the reader of VMDK disks asks of the place where their files are.

Paths are those of an ESXi host: absolute, with slashes, /vmfs/volumes/DATASTORE/FOLDER/FILE.
Whatever a store is (files of this host, SSH, HTTPS), it is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from v2v.extents import Extent

MAX_ENTRIES = 10_000  # of a folder; what is beyond them is not told


class Kind(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds under a name. Links are not followed."""

    name: str  # not to be trusted; without slashes, neither . nor ..
    kind: Kind
    size: int = 0  # bytes, of a file
    used: int | None = None  # bytes that the file takes up; None where nobody tells


class File(Protocol):
    """A file that is open for reading; several threads use it at once.

    Also a v2v.image.reader.Reader, so that headers are checked by what v2v.image has for that.
    """

    name: str  # for messages: ssh://root@esxi/vmfs/volumes/...
    size: int  # bytes
    version: str  # another one when somebody wrote to the file; empty where nobody can tell

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end. SourceError if they cannot be had."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`: all of it, or SourceError (`source-read`, or a clearer id).

        What is lost on the way is asked for again, within the limits of the store.
        """
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Which parts of the range are known to be zero without reading them; covers it all.

        `zero` is said of holes only. Where nobody can tell, it is one extent of data.
        """
        ...


class Store(Protocol):
    """Gives files by their paths. Open until it is closed by who made it."""

    request_size: int  # bytes per read that it prefers; see v2v.endpoint.Endpoint.request_size
    parallel: int  # reads that it can have under way at once

    def open(self, path: str) -> File:
        """SourceError: `image-file-missing`, `source-unreadable` (permission), `source-locked`."""
        ...

    def real_path(self, path: str) -> str:
        """The path without links: what `v2v.vmdk` compares, so that no link leads elsewhere."""
        ...


class ListingStore(Store, Protocol):
    """A store that also tells what is in its folders."""

    def entries(self, path: str) -> Sequence[Entry]:
        """What is in a folder, at most MAX_ENTRIES, in any order. Several threads may ask at once.

        SourceError: `image-file-missing` (also for what is no folder), `source-unreadable`.
        """
        ...
