"""-i disk: a VM from its disk files, block devices, NBD exports or web addresses."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from v2v import nbd_client
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError
from v2v.image import Image, check_raw, read_image, read_remote
from v2v.image.in_use import check_not_written
from v2v.image.magic import HEAD, SECTOR, image_format
from v2v.image.reader import FileReader, Reader
from v2v.input import Input
from v2v.inputs._http import HttpReader, split_user
from v2v.inputs._packed import unpacked_head
from v2v.inputs._serve import ONE_CONNECTION, is_uri, serve_disk
from v2v.options import did_you_mean, option
from v2v.run import Run
from v2v.types import DiskFormat, Source, SourceDisk

NBD_SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
SCHEMES = (*NBD_SCHEMES, "http", "https")
SUFFIXES = (".img", ".raw", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi", ".xz", ".gz", ".ova")
ENDINGS = (*SUFFIXES, "-sda", "-flat")
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskOptions:
    format: DiskFormat | None = option(
        "-if", "format of the disks; without it their content tells", default=None
    )
    allow_backing: tuple[Path, ...] = option(
        "-io allow-backing",
        "files or folders elsewhere that the images may refer to, separated by colons",
        default=(),
        metavar="PATH[:PATH...]",
    )
    password_file: Path | None = option(
        "-ip", "file with the password for http://USER@HOST/...", default=None
    )


class DiskInput(Input):
    mode = "disk"
    aliases = ("local",)
    summary = "disk images, block devices, NBD exports or web addresses"
    Options = DiskOptions
    tools = ("nbdkit", "qemu-nbd")

    options: DiskOptions

    def read_source(self, run: Run) -> Source:
        disks = tuple(self._read_disk(word, i, run) for i, word in enumerate(self.guests))
        return Source(name=guest_name(self.guests), input=self.mode, disks=disks)

    @contextmanager
    def serve(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        with ExitStack() as stack:
            yield tuple(
                stack.enter_context(
                    serve_disk(
                        disk,
                        index,
                        run,
                        allowed=self.options.allow_backing,
                        password_file=self.options.password_file,
                    )
                )
                for index, disk in enumerate(source.disks)
            )

    def _read_disk(self, word: str, index: int, run: Run) -> SourceDisk:
        if not is_uri(word):
            return self._read_file(Path(word).expanduser().absolute(), index, run)
        scheme = word.partition("://")[0].lower()
        if scheme in NBD_SCHEMES:
            return self._read_nbd(word, index, run)
        if scheme in ("http", "https"):
            split_user(word)
            reader = HttpReader(word, self.options.password_file)
            image = read_remote(reader, self.options.format)
            disk = self._checked(image, reader, index, run)
            told = {"modified": reader.version} if reader.version else {}
            return replace(disk, details={**disk.details, **told})
        raise UsageError(
            f"{word}: {scheme}:// is not supported",
            id="uri-scheme",
            hint=did_you_mean(scheme, SCHEMES) or f"supported are {', '.join(SCHEMES)}",
        )

    def _read_file(self, path: Path, index: int, run: Run) -> SourceDisk:
        _check_file(path)
        image = read_image(path, self.options.format, allowed=self.options.allow_backing)
        for file in image.files:
            check_not_written(file)
        with FileReader(path) as reader:
            disk = self._checked(image, reader, index, run, location=str(path))
        details = {**disk.details, "modified": _modified(image)}
        return replace(disk, details=details, files=tuple(map(str, image.files)))

    def _read_nbd(self, uri: str, index: int, run: Run) -> SourceDisk:
        """An export is the disk itself, hence raw, unless -if says that it holds an image."""
        uri = absolute_socket(uri)
        endpoint = nbd_client.describe(uri=uri, cancel=run.cancel, seconds=CONNECT_SECONDS)
        with nbd_client.ExportReader(endpoint, uri) as reader:
            head = reader.read(0, HEAD)
            inside = image_format(head, b"")
            if inside and self.options.format is None:
                raise SourceError(
                    f"{uri} holds a {inside} image, not the disk itself",
                    id="nbd-holds-image",
                    hint=f"-if {inside} reads the image; -if raw takes it as it is",
                )
            image = read_remote(reader, self.options.format or DiskFormat.RAW)
            disk = self._checked(image, reader, index, run)
        told = {} if endpoint.multi_conn else {ONE_CONNECTION: "yes"}
        return replace(disk, details={**disk.details, **told})

    def _checked(
        self, image: Image, reader: Reader, index: int, run: Run, *, location: str | None = None
    ) -> SourceDisk:
        """What the image was found to be, as a disk; what is no disk is refused."""
        location = location or image.location
        format, size, details = image.format, image.size, {}
        head = reader.read(0, HEAD)
        if image.packed:
            details["packed"] = image.packed
            head = unpacked_head(reader, image.packed)
            format = self.options.format or image_format(head, b"") or DiskFormat.RAW
        elif format == DiskFormat.RAW and self.options.format is None:
            check_raw(reader, head, strict=index == 0)
        if size == 0:
            raise _empty(location)
        if format == DiskFormat.RAW and size and size % SECTOR:
            run.warn(
                f"{location} has {size} bytes, not a multiple of {SECTOR}: "
                "its end is filled up with zeroes",
                id="source-padded",
                hint="was it copied completely?",
            )
        return SourceDisk(location, format, size, details=details)


def guest_name(words: Sequence[str]) -> str:
    """The first file's name without what tells of its format; "unknown" when there is none."""
    word = words[0]
    if is_uri(word):
        parts = urlsplit(word)
        word = "" if parts.scheme.lower() in NBD_SCHEMES else unquote(parts.path)
    name = PurePosixPath(word).name
    while True:
        ending = next((e for e in ENDINGS if name.lower().endswith(e) and name != e), None)
        if ending is None:
            return name.strip() or "unknown"
        name = name[: -len(ending)]


def absolute_socket(uri: str) -> str:
    """An NBD URI whose Unix socket does not depend on the current folder."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "socket" not in query or query["socket"].startswith("/"):
        return uri
    query["socket"] = str(Path(query["socket"]).absolute())
    return urlunsplit(parts._replace(query=urlencode(query, safe="/")))


def _modified(image: Image) -> str:
    """Which files the image has and when each was last written: `resume` sees one that changed.

    The newest alone would not do: a file put in place of another may be older than the rest.
    """
    files = [file.stat() for file in image.files if file.is_file()]
    return " ".join(f"{file.st_mtime_ns}/{file.st_size}/{file.st_ino}" for file in files)


def _check_file(path: Path) -> None:
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
        raise SourceError(
            f"{path}: cannot be read: {exc.strerror}",
            id="source-unreadable",
            hint="run v2v as a user that may read it",
        ) from exc
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
        raise _empty(str(path))


def _empty(location: str) -> SourceError:
    return SourceError(
        f"{location} is empty",
        id="image-empty",
        hint="was it copied completely? is it the right file?",
    )
