"""libnbd: handshake, extents and flush. The data path is v2v.copy's."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket as socketlib
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2v.address import parse, scheme_of
from v2v.cancel import Cancel
from v2v.endpoint import Endpoint, nbd_unix_uri
from v2v.errors import HostError, SourceError, UsageError
from v2v.extents import Extent, merge
from v2v.types import GiB, MiB

if TYPE_CHECKING:
    import nbd

log = logging.getLogger(__name__)

BASE_ALLOCATION = "base:allocation"
STATE_ZERO = 2  # NBD_STATE_ZERO of the NBD protocol
ALLOCATION_DEPTH = "qemu:allocation-depth"  # of qemu-nbd: in which image of a chain the data is
STATUS_REQUEST = 2 * GiB  # bytes asked about at once; the protocol's length has 32 bits
READ_REQUEST = MiB  # every server takes so much
POLL_MILLISECONDS = 100  # how late a cancelled job may notice
GOODBYE_SECONDS = 5.0  # a server has nothing left to do then but to close the connection


def describe(
    socket: Path | None = None,
    *,
    uri: str | None = None,
    export: str = "",
    read_only: bool = True,
    cancel: Cancel | None = None,
    seconds: float | None = None,
) -> Endpoint:
    """Shake hands with a server and note what it promises. Give `socket`, or else `uri`.

    A server that unpacks its disk first answers late: there is no time limit unless given.
    """
    if uri is None:
        assert socket is not None  # noqa: S101  the caller's mistake, not the user's
        uri = nbd_unix_uri(socket, export)
    handle = _connect(socket, uri, export, cancel, seconds)
    try:
        block = _block_sizes(handle)
        return Endpoint(
            uri=uri,
            size=handle.get_size(),
            socket=socket,
            export=export,
            minimum_block=block[0],
            preferred_block=block[1],
            maximum_block=block[2],
            multi_conn=handle.can_multi_conn(),
            read_only=read_only or handle.is_read_only(),
        )
    finally:
        _say_goodbye(handle)


def connect(
    endpoint: Endpoint,
    *,
    cancel: Cancel | None = None,
    seconds: float | None = None,
    depths: bool = False,
) -> nbd.NBD:
    """A new connection, with base:allocation negotiated when the server has it.

    `depths` negotiates qemu:allocation-depth as well.
    """
    where = (endpoint.socket, endpoint.uri, endpoint.export)
    return _connect(*where, cancel, seconds, depths=depths)


def extents(
    endpoint: Endpoint,
    handle: nbd.NBD | None = None,
    *,
    cancel: Cancel | None = None,
    stall: float | None = None,
) -> Iterator[Extent]:
    """Data and zeroes of the whole disk, from base:allocation; without it all is data.

    `handle` is a connection to use; without one a connection is made for this. A server that has
    been silent for `stall` seconds counts as gone.
    """
    cancel = cancel or Cancel()
    if handle is not None:
        yield from merge(_extents(endpoint.size, handle, cancel, stall))
        return
    handle = connect(endpoint, cancel=cancel, seconds=stall)
    try:
        yield from merge(_extents(endpoint.size, handle, cancel, stall))
    except BaseException:
        hang_up(handle)  # a server that answers no more would not hear a goodbye either
        raise
    _say_goodbye(handle)


class ExportReader:
    """The headers of an image that lies in an NBD export: a v2v.image.reader.Reader.

    A server that has been silent for `stall` seconds counts as gone.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        *,
        cancel: Cancel | None = None,
        stall: float | None = None,
    ) -> None:
        self.name = name
        self.size = endpoint.size
        self._block = endpoint.minimum_block
        self._cancel = cancel or Cancel()
        self._stall = stall
        self._handle = connect(endpoint, cancel=cancel, seconds=stall)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self.size:
            return b""
        end = min(offset + length, self.size)
        start = offset - offset % self._block
        parts = []
        for at in range(start, end, READ_REQUEST):
            stop = min(-(-end // self._block) * self._block, at + READ_REQUEST, self.size)
            parts.append(self._pread(at, stop - at))
        return b"".join(parts)[offset - start : end - start]

    def _pread(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)  # libnbd 1.14 never frees an nbd.Buffer
        try:
            wait(self._handle, self._handle.aio_pread(buffer, offset), self._cancel, self._stall)
        except (_binding().Error, TimeoutError) as exc:
            why = exc.strerror if isinstance(exc, TimeoutError) else exc.string
            raise SourceError(
                f"{self.name}: reading at byte {offset} failed: {why}", id="source-read"
            ) from exc
        return bytes(buffer)

    def __enter__(self) -> ExportReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            _say_goodbye(self._handle)
        else:
            hang_up(self._handle)


def flush(endpoint: Endpoint, *, cancel: Cancel | None = None) -> None:
    """Have the server write out what it was given (NBD_CMD_FLUSH)."""
    handle = connect(endpoint, cancel=cancel)
    try:
        if handle.can_flush():
            wait(handle, handle.aio_flush(), cancel or Cancel())
    except BaseException as exc:
        hang_up(handle)
        if not isinstance(exc, _binding().Error):
            raise
        raise SourceError(
            f"{endpoint.uri}: what was written cannot be flushed: {exc.string}",
            id="nbd-flush",
            hint="see the servers' logs in the job's folder",
        ) from exc
    _say_goodbye(handle)


def wait(handle: nbd.NBD, command: int, cancel: Cancel, stall: float | None = None) -> None:
    """Until `command` is answered; a refusal is an nbd.Error.

    Raises TimeoutError when nothing was sent or received for `stall` seconds. What came while we
    ourselves stood still counts: there is one more look when they are over.
    """
    limit = math.inf if stall is None else stall
    deadline = time.monotonic() + limit
    while not handle.aio_command_completed(command):
        cancel.check()
        over = time.monotonic() > deadline
        if handle.poll(POLL_MILLISECONDS) > 0:
            deadline = time.monotonic() + limit
        elif over:
            raise TimeoutError(errno.ETIMEDOUT, f"the NBD server has been silent for {stall:g} s")


def check_trusted(uri: str) -> None:
    """Refuse TLS to a server that nobody would verify.

    libnbd 1.14 goes on with any certificate of any host when it finds no authority's to check it
    against. On a Unix socket it never looks; there the socket's place tells who the server is.
    """
    address = parse(uri) if scheme_of(uri) == "nbds" else None
    if address is None or "tls-psk-file" in address.query:
        return
    given = address.query.get("tls-certificates")
    folders = [Path(given)] if given else _default_certificates()
    if not any((folder / "ca-cert.pem").is_file() for folder in folders):
        raise UsageError(
            f"{uri}: there is no certificate to know its server by: no ca-cert.pem in "
            + " or ".join(map(str, folders)),
            id="tls-unverified",
            hint="put that of the server's authority there, or name its folder with "
            "?tls-certificates=FOLDER, or a key with ?tls-psk-file=FILE",
        )


def _default_certificates() -> list[Path]:
    """Where libnbd looks: nbd_set_tls_certificates(3)."""
    if os.geteuid() == 0:
        return [Path("/etc/pki/libnbd")]
    return [Path.home() / ".pki/libnbd", Path.home() / ".config/pki/libnbd"]


def _say_goodbye(handle: nbd.NBD) -> None:
    """End a connection on which nothing is in flight. libnbd would wait for the server for ever."""
    deadline = time.monotonic() + GOODBYE_SECONDS
    with suppress(_binding().Error):  # it is gone
        handle.aio_disconnect(0)
        while not (handle.aio_is_closed() or handle.aio_is_dead()):
            if time.monotonic() > deadline:
                hang_up(handle)
                return
            handle.poll(POLL_MILLISECONDS)


def hang_up(handle: nbd.NBD) -> None:
    """Break the connection at once, whatever is in flight and whoever still holds the handle.

    A server that is told to end waits for its clients; after an error, the traceback keeps them.
    """
    with (
        suppress(OSError, _binding().Error),  # it may be gone already
        socketlib.socket(fileno=os.dup(handle.aio_get_fd())) as connection,
    ):
        connection.shutdown(socketlib.SHUT_RDWR)


def _binding() -> Any:
    try:
        import nbd
    except ImportError as exc:
        raise HostError(
            "the Python binding of libnbd is not installed",
            id="binding-missing",
            hint="install it: apt-get install python3-libnbd, or dnf install python3-libnbd",
        ) from exc
    return nbd


def _connect(
    socket: Path | None,
    uri: str,
    export: str,
    cancel: Cancel | None = None,
    seconds: float | None = None,
    *,
    depths: bool = False,
) -> nbd.NBD:
    nbd = _binding()
    check_trusted(uri)
    handle = nbd.NBD()
    handle.set_uri_allow_local_file(True)  # ?tls-psk-file=...: addresses are the user's own words
    handle.add_meta_context(BASE_ALLOCATION)
    if depths:
        handle.add_meta_context(ALLOCATION_DEPTH)
    try:
        if socket is None:
            handle.aio_connect_uri(uri)
        else:
            handle.set_export_name(export)
            handle.aio_connect_unix(str(socket))
        _shake_hands(handle, cancel or Cancel(), seconds)
    except BaseException as exc:
        hang_up(handle)
        if isinstance(exc, nbd.Error):
            raise _unreachable(uri, exc.string) from exc
        if isinstance(exc, TimeoutError):
            raise _unreachable(uri, f"no answer within {seconds:.0f} s") from exc
        raise
    return handle


def _shake_hands(handle: nbd.NBD, cancel: Cancel, seconds: float | None) -> None:
    deadline = time.monotonic() + (seconds if seconds is not None else math.inf)
    while handle.aio_is_connecting():
        cancel.check()
        over = time.monotonic() > deadline
        if handle.poll(POLL_MILLISECONDS) == 0 and over:  # as in `wait`
            raise TimeoutError


def _unreachable(uri: str, cause: str) -> SourceError:
    return SourceError(
        f"cannot connect to {uri}: {cause}",
        id="nbd-unreachable",
        hint="is the NBD server running, and does it have this export?",
    )


def _block_sizes(handle: nbd.NBD) -> tuple[int, int, int]:
    """Minimum, preferred and maximum request in bytes; the protocol's defaults where untold."""
    nbd = _binding()
    sizes = [
        handle.get_block_size(kind)
        for kind in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)
    ]
    return sizes[0] or 1, sizes[1] or 4096, sizes[2] or 32 * MiB


def _extents(size: int, handle: nbd.NBD, cancel: Cancel, stall: float | None) -> Iterator[Extent]:
    offset = 0
    if not handle.can_meta_context(BASE_ALLOCATION):
        yield Extent(0, size)
        return
    while offset < size:
        length = min(STATUS_REQUEST, size - offset)
        for span, flags in _status(handle, offset, length, cancel, stall) or [(length, 0)]:
            span = min(span, size - offset)
            yield Extent(offset, span, zero=bool(flags & STATE_ZERO))
            offset += span


def _status(
    handle: nbd.NBD, offset: int, length: int, cancel: Cancel, stall: float | None
) -> list[tuple[int, int]]:
    """One answer: (length, flags) of successive ranges, maybe short; empty if there is none."""
    return statuses(handle, offset, length, cancel, stall).get(BASE_ALLOCATION, [])


def statuses(
    handle: nbd.NBD, offset: int, length: int, cancel: Cancel, stall: float | None = None
) -> dict[str, list[tuple[int, int]]]:
    """The answers to one question by context; none of one that failed."""
    nbd = _binding()
    found: dict[str, list[tuple[int, int]]] = {}

    def answer(context: str, start: int, entries: list[int], error: Any) -> int:
        if start == offset:
            pairs = zip(entries[::2], entries[1::2], strict=True)
            found[context] = [(span, value) for span, value in pairs if span > 0]
        return 0

    try:
        wait(handle, handle.aio_block_status(length, offset, answer), cancel, stall)
    except TimeoutError as exc:
        raise SourceError(str(exc.strerror), id="nbd-lost") from exc
    except nbd.Error as exc:
        if handle.aio_is_dead() or handle.aio_is_closed():
            raise SourceError(f"the NBD server went away: {exc.string}", id="nbd-lost") from exc
        log.debug("block status at %d failed, taken for data: %s", offset, exc.string)
        return {}
    return found
