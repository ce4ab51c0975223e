"""Showing the disks of a VM to other programs, without converting anything: `v2v open`.

Each disk is on a Unix socket, or on a TCP port, and as a raw file too if asked. All of it is gone
at the end of the block, whatever happens, and the source is never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from v2v import coordinator
from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.job import Job
from v2v.opening import files, sockets, tcp
from v2v.opening.place import Place, Tls
from v2v.outputs._files import disk_suffix, safe_name
from v2v.process import find_tool
from v2v.run import Run
from v2v.types import Source

__all__ = ["Exposure", "OpenedDisk", "OpenedGuest", "Place", "Tls", "opened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How disks are shown. `writable`: to a throw-away overlay. `tcp`: [HOST:]PORT of the first
    disk. `fuse`: a folder for raw files."""

    writable: bool = False
    socket_dir: Path | None = None  # None: a private one
    tcp: str | None = None
    tls: Tls | None = None
    insecure: bool = False  # TCP without TLS for other hosts
    fuse: Path | None = None


def exposure(
    *,
    writable: bool = False,
    socket_dir: str | Path | None = None,
    tcp: str | int | None = None,
    tls_certificates: str | Path | None = None,
    tls_psk_file: str | Path | None = None,
    insecure: bool = False,
    fuse: str | Path | None = None,
) -> Exposure:
    """From words and paths as users give them."""
    certificates, psk_file = _path(tls_certificates), _path(tls_psk_file)
    return Exposure(
        writable=writable,
        socket_dir=_path(socket_dir),
        tcp=None if tcp is None else str(tcp),
        tls=Tls(certificates=certificates, psk_file=psk_file) if certificates or psk_file else None,
        insecure=insecure,
        fuse=_path(fuse),
    )


def _path(word: str | Path | None) -> Path | None:
    return None if word is None else Path(word).expanduser().absolute()


@dataclass(frozen=True, slots=True)
class OpenedDisk:
    """One disk as others reach it."""

    name: str  # sda, sdb, ...
    size: int  # bytes
    uri: str  # NBD
    socket: Path | None = None  # None: on TCP
    file: Path | None = None  # the raw file, with `fuse`

    @property
    def libguestfs_uri(self) -> str:
        """As -a of guestfish takes it: libguestfs 1.48 knows no nbd+unix:."""
        return self.uri.replace("nbd+unix:", "nbd:", 1)


@dataclass(frozen=True, slots=True)
class OpenedGuest:
    """What is open. `name` comes from the source: treat as hostile."""

    name: str
    disks: tuple[OpenedDisk, ...]
    writable: bool = False


@contextmanager
def opened(job: Job, input_: Input, how: Exposure, run: Run) -> Iterator[OpenedGuest]:
    """Show the disks of `job`'s guest until the block ends.

    The servers end with the thread that enters the block, if it does not leave it.
    """
    address = checked(how)
    with ExitStack() as stack:
        folder = stack.enter_context(files.prepared(how.fuse, run)) if how.fuse else None
        source = coordinator.read_source(job, input_, run)
        names = [disk_suffix(index) for index in range(len(source.disks))]
        served = stack.enter_context(_served(source, input_, how, run))
        if address:
            places = stack.enter_context(tcp.listening(address, how.tls, served, names, run))
        else:
            places = stack.enter_context(sockets.linked(how.socket_dir, served, names, run))
        shown: Sequence[Path | None] = [None] * len(names)
        if folder:
            stem = safe_name(source.name)
            paths = [folder / f"{stem}-{name}{files.SUFFIX}" for name in names]
            shown = stack.enter_context(files.mounted(paths, served, run))
        disks = (
            OpenedDisk(name, endpoint.size, place.uri, place.socket, file)
            for name, endpoint, place, file in zip(names, served, places, shown, strict=True)
        )
        yield OpenedGuest(source.name, tuple(disks), how.writable)


def checked(how: Exposure) -> tcp.Address | None:
    """Refuse what contradicts itself or would show the disks to strangers; give where to listen."""
    if how.tcp is not None and how.socket_dir:
        raise _conflict("--socket-dir and --tcp exclude each other")
    if (how.tls or how.insecure) and how.tcp is None:
        raise _conflict("TLS and --insecure are for --tcp: a Unix socket is the user's alone")
    if how.tls and how.tls.certificates and how.tls.psk_file:
        raise _conflict("--tls-certificates and --tls-psk-file exclude each other")
    if how.fuse:
        find_tool("nbdfuse")
        find_tool("fusermount3")
    return tcp.checked(how.tcp, how.tls, insecure=how.insecure) if how.tcp is not None else None


def _conflict(message: str) -> UsageError:
    return UsageError(message, id="option-conflict", hint="leave one of them out")


@contextmanager
def _served(source: Source, input_: Input, how: Exposure, run: Run) -> Iterator[Sequence[Endpoint]]:
    """The disks as the input serves them, which is read-only; or throw-away overlays over them."""
    if how.writable:
        with coordinator.open_disks(source, input_, run) as disks:
            yield [disk.overlay for disk in disks]
        return
    with ExitStack() as stack:
        with run.step("open", "Opening the source"):
            served = stack.enter_context(input_.serve(source, run))
        yield served
