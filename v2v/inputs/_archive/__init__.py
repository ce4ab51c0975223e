"""What lies in an OVA, whatever holds it, and which of it is meant. Names in it are hostile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import unquote

from v2v.errors import SourceError
from v2v.image.reader import Reader
from v2v.texts import some
from v2v.types import MiB

MAX_MEMBERS = 10_000  # an OVA has a handful
MAX_OVF = 16 * MiB  # bytes; real ones have some KiB
MAX_MANIFEST = MiB
CHUNK = MiB  # bytes read or unpacked at once
FIRST_CHUNK = ".000000000"  # what VMware appends to the name of a file that is split
SECOND_CHUNK = ".000000001"
DISK_ENDINGS = ("", FIRST_CHUNK, ".gz")  # of the name that the OVF gives
COPY_AGAIN = "take the copy again from where it came"
NAME_SHOWN = 255  # characters of each; in an archive they may have thousands


class Kind(StrEnum):
    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"
    DEVICE = "neither a file nor a folder"
    OUTSIDE = "a file outside of the archive"  # by its name


@dataclass(frozen=True, slots=True)
class Deflated:
    """How a member of a zip archive is compressed."""

    length: int  # bytes in the archive
    crc: int


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive or a folder. `offset` is where its bytes begin in the archive."""

    name: str  # relative, without . and ..; as it is spelled where `kind` is OUTSIDE
    size: int  # bytes, unpacked
    kind: Kind = Kind.FILE
    offset: int | None = None
    deflated: Deflated | None = None


class Listing(Protocol):
    """The members of an archive, all of which are known, or of a folder."""

    where: str  # for messages

    def find(self, name: str) -> Member | None: ...

    def names(self) -> Iterable[str]: ...


class Container(Listing, Protocol):
    """One whose members can be read at any time."""

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member, unpacked: never more than its size."""
        ...


class Indexed(ABC):
    """A container of which all members are known from the start: those that `_walk` gives."""

    def __init__(self, reader: Reader) -> None:
        self.where = reader.name
        self._reader = reader
        self._members = index(self._walk(), self.where)

    @abstractmethod
    def _walk(self) -> Iterable[Member]: ...

    def find(self, name: str) -> Member | None:
        return self._members.get(name)

    def names(self) -> Iterable[str]:
        return self._members

    def members(self) -> Iterable[Member]:
        return self._members.values()


def member(
    name: str,
    size: int,
    kind: Kind,
    offset: int | None = None,
    deflated: Deflated | None = None,
) -> Member:
    """A member by the name that the archive gives it."""
    safe = relative_name(name)
    if safe is None:
        return Member(name, size, Kind.OUTSIDE)
    return Member(safe, size, kind, offset, deflated)


def relative_name(name: str) -> str | None:
    """The name without needless parts; None if it leads out of the folder, or may do so."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        return None
    if any(character in name for character in "\\\0") or ":" in path.parts[0]:
        return None
    return str(path)


def index(members: Iterable[Member], where: str) -> dict[str, Member]:
    """The members by name. Two of one name have two meanings: refused."""
    found: dict[str, Member] = {}
    for one in members:
        if one.kind in (Kind.FOLDER, Kind.OUTSIDE):
            continue
        if one.name in found:
            raise SourceError(
                f"{where} holds {one.name!r} twice: which of them is meant?",
                id="ova-duplicate",
                hint="pack it again, with each file once",
            )
        found[one.name] = one
    return found


def is_ovf(name: str) -> bool:
    """macOS adds files ._NAME, which are not what their names say."""
    path = PurePosixPath(name)
    return path.suffix.lower() == ".ovf" and not path.name.startswith("._")


def choose_ovf(members: Iterable[Member], where: str, names: Iterable[str]) -> Member:
    """The OVF nearest to the top; several side by side are refused. `names` are for messages."""
    found = [one for one in members if is_ovf(one.name) and one.kind is not Kind.FOLDER]
    found = [one for one in found if one.kind is not Kind.OUTSIDE]
    if not found:
        raise SourceError(
            f"{where} holds no OVF to describe the VM; it has {listed(names)}",
            id="ova-no-ovf",
            hint="if it only holds disks, unpack it and read them with -i disk",
        )
    depth = min(one.name.count("/") for one in found)
    top = [one for one in found if one.name.count("/") == depth]
    if len(top) > 1:
        raise several(where, [one.name for one in top])
    return checked_file(top[0], where)


def several(where: str, names: Iterable[str]) -> SourceError:
    return SourceError(
        f"{where} holds several OVFs: {listed(names)}",
        id="ova-several-ovf",
        hint="unpack it, and give the .ovf file of the VM that is meant",
    )


def find_disk(href: str, ovf: str, listing: Listing) -> Member:
    """The file that the OVF means by `href`. VMware may have split it, or gzip'd it."""
    where = listing.where
    for path in paths_of(href, ovf, where):
        for name in (path + ending for ending in DISK_ENDINGS):
            if (found := listing.find(name)) is None:
                continue
            if name.endswith(FIRST_CHUNK) and listing.find(path + SECOND_CHUNK):
                raise split_file(path, where)
            return checked_file(found, where)
    there = listed(listing.names())
    raise SourceError(
        f"{where}: the OVF names the disk {href!r}, which is not there; it has {there}",
        id="ova-disk-missing",
        hint="was it copied completely?",
    )


def split_file(path: str, where: str) -> SourceError:
    return SourceError(
        f"{where}: the disk {path!r} is split into several files",
        id="ova-chunks",
        hint=f"unpack it, join them in their order (cat {path}.0* > {path}), and give the .ovf",
    )


def paths_of(href: str, ovf: str, where: str) -> list[str]:
    """Where in the container the file may lie: as it is written, or with %20 and the like."""
    found = []
    for spelled in dict.fromkeys((href, unquote(href))):
        name = relative_name(spelled)
        if name is None or "://" in spelled:
            raise SourceError(
                f"{where}: the OVF names the disk {href!r}: refused, "
                "because it is no file beside the OVF",
                id="ova-names-other-file",
                hint="put the file beside the OVF, and its name into the OVF",
            )
        found.append(str(PurePosixPath(ovf).parent / name))
    return found


def checked_file(found: Member, where: str) -> Member:
    if found.kind is Kind.FILE:
        return found
    raise SourceError(
        f"{where}: {found.name!r} is {found.kind}, and not a file",
        id="ova-not-a-file",
        hint="pack it again, with the files themselves",
    )


def small_content(container: Container, found: Member, limit: int) -> bytes:
    """All of a small file."""
    if found.size > limit:
        raise too_large(container.where, found.name, limit)
    return b"".join(container.chunks(found))


def too_large(where: str, name: str, limit: int) -> SourceError:
    return SourceError(
        f"{where}: {name!r} has more than {limit // MiB} MiB",
        id="ova-too-large",
        hint="is it the right file?",
    )


def too_many(where: str) -> SourceError:
    return SourceError(
        f"{where} holds more than {MAX_MEMBERS} files",
        id="ova-too-many",
        hint="an OVA has a handful of files; is it the right archive?",
    )


def damaged(where: str, what: str) -> SourceError:
    return SourceError(f"{where}: damaged archive: {what}", id="ova-damaged", hint=COPY_AGAIN)


def truncated(where: str, what: str) -> SourceError:
    return SourceError(f"{where} is truncated: {what}", id="ova-truncated", hint=COPY_AGAIN)


def unsupported(where: str, what: str, hint: str) -> SourceError:
    return SourceError(f"{where}: {what}", id="ova-unsupported", hint=hint)


def listed(names: Iterable[str]) -> str:
    """Some names, for a message."""
    return some([repr(name[:NAME_SHOWN]) for name in sorted(names)]) or "nothing"
