"""Disk images as source disks, wherever they are: what they are, and how they are served."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v import nbd_client
from v2v.address import NBD_SCHEMES, parse, scheme_of
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError
from v2v.image import Image, check_raw, read_image, read_remote
from v2v.image.in_use import check_not_written
from v2v.image.magic import HEAD, SECTOR, image_format
from v2v.image.reader import FileReader, Reader, SliceReader, unreadable
from v2v.inputs._checksums import DiskCheck, checking
from v2v.inputs._details import MODIFIED, ONE_CONNECTION, PACKED, Slice, is_uri, shown
from v2v.inputs._images.packed import unpacked_head
from v2v.inputs._serve import serve_disk
from v2v.inputs._serve.http import HttpReader, split_user
from v2v.inputs._serve.unseen import SCHEMES as UNSEEN_SCHEMES
from v2v.inputs._serve.unseen import unseen_disk
from v2v.options import did_you_mean
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

HTTP_SCHEMES = ("http", "https")
SCHEMES = (*NBD_SCHEMES, *HTTP_SCHEMES, *UNSEEN_SCHEMES)
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How images may be read. `format` None: the content tells. `unpack`: one that is packed is
    unpacked, `format` is the one inside. `strict` refuses a raw disk that shows no sign of being
    one."""

    format: DiskFormat | None = None
    unpack: bool = True
    allowed: tuple[Path, ...] = ()  # files and folders elsewhere that they may refer to
    password_file: Path | None = None
    strict: bool = False
    known_hosts: Path | None = None  # keys of hosts that ssh:// may connect to
    identity: Path | None = None  # the key that ssh:// logs in with


def read_disk(word: str, access: Access, run: Run, *, part: Slice | None = None) -> SourceDisk:
    """The disk that a path or a URI names, or that lies in a part of it. Starts no server."""
    if not is_uri(word):
        return read_file(Path(word).expanduser().absolute(), access, run, part=part)
    scheme = scheme_of(word)
    if scheme in NBD_SCHEMES:
        return read_nbd(word, access, run, part=part)
    if scheme in HTTP_SCHEMES:
        return read_http(word, access, run, part=part)
    if scheme in UNSEEN_SCHEMES:
        return unseen_disk(
            word,
            access.format,
            unpack=access.unpack,
            known_hosts=access.known_hosts,
            identity=access.identity,
            part=part,
        )
    raise UsageError(
        f"{word}: {scheme}:// is not supported",
        id="uri-scheme",
        hint=did_you_mean(scheme, SCHEMES) or f"supported are {', '.join(SCHEMES)}",
    )


@contextmanager
def serve_disks(
    disks: Sequence[SourceDisk], access: Access, run: Run
) -> Iterator[Sequence[Endpoint]]:
    """Serve them read-only, in their order. Of `access` only what opening needs is looked at.

    Disks whose checksum the source tells are checked meanwhile.
    """
    with ExitStack() as stack:
        endpoints = tuple(
            stack.enter_context(
                serve_disk(
                    disk,
                    index,
                    run,
                    allowed=access.allowed,
                    password_file=access.password_file,
                )
            )
            for index, disk in enumerate(disks)
        )
        pairs = zip(disks, endpoints, strict=True)
        checks = [DiskCheck(shown(d), d.checksum, one) for d, one in pairs if d.checksum]
        with checking(checks, run):
            yield endpoints


def read_file(path: Path, access: Access, run: Run, *, part: Slice | None = None) -> SourceDisk:
    check_file(path)
    with FileReader(path) as file:
        reader = sliced(file, str(path), part)
        if part:  # it may name no other file: whose folder would be the archive's
            image = read_remote(reader, access.format, unpack=access.unpack)
            image = replace(image, files=(path.resolve(),))
        else:
            image = read_image(path, access.format, allowed=access.allowed, unpack=access.unpack)
        for one in image.files:
            check_not_written(one)
        disk = checked(image, reader, access, run, str(path), part)
    details = {**disk.details, MODIFIED: modified(image)}
    return replace(disk, details=details, files=tuple(map(str, image.files)))


def read_http(url: str, access: Access, run: Run, *, part: Slice | None = None) -> SourceDisk:
    split_user(url)
    whole = HttpReader(url, access.password_file, run.cancel)
    reader = sliced(whole, url, part)
    image = read_remote(reader, access.format, unpack=access.unpack)
    disk = checked(image, reader, access, run, url, part)
    told = {MODIFIED: whole.version} if whole.version else {}
    return replace(disk, details={**disk.details, **told})


def read_nbd(uri: str, access: Access, run: Run, *, part: Slice | None = None) -> SourceDisk:
    """An export is the disk itself, hence raw, unless the user says that it holds an image."""
    uri = parse(uri).anchored().write()
    endpoint = nbd_client.describe(uri=uri, cancel=run.cancel, seconds=CONNECT_SECONDS)
    with nbd_client.ExportReader(endpoint, uri) as export:
        reader = sliced(export, uri, part)
        inside = image_format(reader.read(0, HEAD), b"")
        if inside and access.format is None:
            raise SourceError(
                f"{reader.name} holds a {inside} image, not the disk itself",
                id="nbd-holds-image",
                hint=f"-if {inside} reads the image; -if raw takes it as it is",
            )
        unpack = access.unpack and access.format is not None
        image = read_remote(reader, access.format or DiskFormat.RAW, unpack=unpack)
        disk = checked(image, reader, access, run, uri, part)
    told = {} if endpoint.multi_conn else {ONE_CONNECTION: "yes"}
    return replace(disk, details={**disk.details, **told})


def sliced(reader: Reader, location: str, part: Slice | None) -> Reader:
    return SliceReader(reader, part.offset, part.length, part.name(location)) if part else reader


def checked(
    image: Image,
    reader: Reader,
    access: Access,
    run: Run,
    location: str,
    part: Slice | None = None,
) -> SourceDisk:
    """What the image was found to be, as a disk; what is no disk is refused."""
    format, size = image.format, image.size
    details = part.details() if part else {}
    head = reader.read(0, HEAD)
    if image.packed:
        details[PACKED] = image.packed
        head = unpacked_head(reader, image.packed)
        format = access.format or image_format(head, b"") or DiskFormat.RAW
    elif format == DiskFormat.RAW and access.format is None:
        check_raw(reader, head, strict=access.strict)
    if size == 0:
        raise empty(reader.name)
    if format == DiskFormat.RAW and size and size % SECTOR:
        run.warn(
            f"{reader.name} has {size} bytes, not a multiple of {SECTOR}: "
            "its end is filled up with zeroes",
            id="source-padded",
            hint="was it copied completely?",
        )
    return SourceDisk(location, format, size, details=details)


def modified(image: Image) -> str:
    """By which `resume` sees that a file changed, or that the image has others."""
    return fingerprint(image.files)


def fingerprint(files: Iterable[Path]) -> str:
    """Which files these are and when each was last written.

    The newest alone would not do: a file put in place of another may be older than the rest.
    """
    stats = [file.stat() for file in files if file.is_file()]
    return " ".join(f"{one.st_mtime_ns}/{one.st_size}/{one.st_ino}" for one in stats)


def check_file(path: Path) -> None:
    """Refuse by name and kind alone, before anything is opened: opening a FIFO would hang."""
    try:
        str(path).encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError as exc:
        shown = str(path).encode(errors="replace").decode()
        raise SourceError(f"{shown}: the name is not UTF-8", id="source-name") from exc
    except FileNotFoundError as exc:
        raise SourceError(
            f"{path}: no such file", id="source-missing", hint="is the path right?"
        ) from exc
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if stat.S_ISDIR(mode):
        raise SourceError(
            f"{path} is a folder", id="source-not-a-file", hint="give the disk images in it"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise SourceError(
            f"{path} is neither a file nor a block device",
            id="source-not-a-file",
            hint="give a disk image",
        )
    if stat.S_ISREG(mode) and path.stat().st_size == 0:
        raise empty(str(path))


def empty(location: str) -> SourceError:
    return SourceError(
        f"{location} is empty",
        id="image-empty",
        hint="was it copied completely? is it the right file?",
    )
