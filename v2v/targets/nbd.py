"""An NBD export as a target, usually of another host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from v2v import nbd_client
from v2v.address import NBD_SCHEMES as SCHEMES
from v2v.address import Address, parse, scheme_of
from v2v.copy.engine import measure
from v2v.copy.sinks import NbdSink, Sink
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, TargetError
from v2v.extents import ExtentMap
from v2v.job import CopyOptions
from v2v.run import Run
from v2v.targets._base import Opened, Place
from v2v.types import Source

PORT = 10809  # of the NBD protocol
CONNECT_SECONDS = 30.0

HINTS = (
    ("poll: open: ", "is that the path of the key file?"),
    ("TLS", "does the server speak TLS (nbds://, else nbd://), and does it trust this host's key?"),
    (
        "certificate verification",
        "the server's certificate is not {where}'s, or not of the authority whose ca-cert.pem is "
        "in tls-certificates: TLS goes on with no other",
    ),
    (
        "gnutls",
        "does the server speak TLS, and does it trust the client-cert.pem in tls-certificates, or "
        "the key in tls-psk-file?",
    ),
    ("socket parameter", "name the server's socket: nbd+unix:///?socket=/run/web.sock"),
    ("no export", "`nbdinfo --list {server}` lists what the server exports"),
    (
        "refused",
        "is the server running there, and does a firewall let port {port} through? "
        "qemu-nbd without --persistent ends after the first connection",
    ),
    ("No such file", "is the server running, and is that the path of its socket?"),
    ("Permission denied", "may this user open the server's socket?"),
    ("ame or service not known", "is the host's name right?"),
    ("has been silent", "what holds the server up? --stall-timeout waits longer"),
    (
        "no answer",
        "is {where} the right host, and does a firewall let port {port} through? qemu-nbd without "
        "--shared=0 answers one client at a time",
    ),
)


def absolute_uri(uri: str) -> str:
    """The address in one spelling, which does not depend on the current folder."""
    address = parse(uri).anchored()
    port = None if address.port == PORT else address.port
    return replace(address, port=port, path=address.path or "/").write()


class NbdExport(Place):
    """`uri` as `absolute_uri` gives it."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def check(self, source: Source) -> None:
        if any(_is_one_export(disk.location, self.uri) for disk in source.disks):
            raise TargetError(
                f"{self.uri} is the source too",
                id="target-is-source",
                hint="give the target another address",
            )

    def look(self, options: CopyOptions, run: Run, *, blank: bool) -> int:
        endpoint = self._describe(run)
        if blank:
            self._check_blank(endpoint, self._extents(endpoint, options, run), options, run)
        if options.verify:
            self._check_second(endpoint, run)
        return endpoint.size

    @contextmanager
    def open(self, disk: Opened, run: Run, *, sparse: bool) -> Iterator[Sink]:
        endpoint = self._describe(run)
        self.note_size(disk.size, endpoint.size, run)
        extents = self._extents(endpoint, disk.options, run)
        if not disk.resumed and not disk.force:
            self._check_blank(endpoint, extents, disk.options, run)
        sink = NbdSink(
            endpoint,
            request_size=None,
            is_zero=extents.data == 0,
            sparse=sparse,
            stall=disk.options.stall_timeout,
            cancel=run.cancel,
        )
        try:
            if disk.options.verify:
                self._check_second(endpoint, run)
            yield sink
        except BaseException:
            sink.hang_up()
            raise
        sink.close()

    def is_same(self, other: Place) -> bool:
        return isinstance(other, NbdExport) and _is_one_export(self.uri, other.uri)

    def _extents(self, endpoint: Endpoint, options: CopyOptions, run: Run) -> ExtentMap:
        with self._reached():
            return measure(endpoint, run.cancel, stall=options.stall_timeout)

    def _check_blank(
        self, endpoint: Endpoint, extents: ExtentMap, options: CopyOptions, run: Run
    ) -> None:
        with (
            self._reached(),
            nbd_client.ExportReader(
                endpoint, self.uri, cancel=run.cancel, stall=options.stall_timeout
            ) as reader,
        ):
            self.check_blank(reader.read, endpoint.size, extents)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except SourceError as exc:
            raise TargetError(
                exc.message, id="target-unreachable", hint=self._hint(exc.message)
            ) from exc

    def _check_second(self, endpoint: Endpoint, run: Run) -> None:
        """To verify takes a connection besides the one to write: said before hours of copying."""
        try:
            handle = nbd_client.connect(endpoint, cancel=run.cancel, seconds=CONNECT_SECONDS)
        except SourceError as exc:
            raise TargetError(
                f"{self.uri} takes one connection at a time, --verify needs two: {exc.message}",
                id="target-unreachable",
                hint="start qemu-nbd there with --shared=0, or leave out --verify",
            ) from exc
        nbd_client.hang_up(handle)

    def _describe(self, run: Run) -> Endpoint:
        with self._reached():
            endpoint = nbd_client.describe(
                uri=self.uri, read_only=False, cancel=run.cancel, seconds=CONNECT_SECONDS
            )
        if endpoint.read_only:
            raise TargetError(
                f"{self.uri} cannot be written: {self._where()} exports it read-only",
                id="target-read-only",
                hint="start qemu-nbd there without --read-only, or nbdkit without --readonly "
                "and without filters that cannot write",
            )
        return endpoint

    def _where(self) -> str:
        address = parse(self.uri)
        socket = address.query.get("socket")
        return f"the server at {socket}" if socket else address.host or "localhost"

    def _hint(self, cause: str) -> str:
        address = parse(self.uri)
        server = replace(address, path="/" if address.query else "").write()
        for word, hint in HINTS:
            if word in cause:
                return hint.format(where=self._where(), port=address.port or PORT, server=server)
        return f"is an NBD server running at {self._where()}? docs/copy.md tells how to start one"


def _is_one_export(one: str, other: str) -> bool:
    """Whether two addresses mean the same export of the same server, by its socket, its name or an
    address that both names have."""
    if not {scheme_of(one), scheme_of(other)} <= set(SCHEMES):
        return False
    first, second = parse(one), parse(other)
    if first.path.removeprefix("/") != second.path.removeprefix("/"):
        return False
    return _server(first) == _server(second) or bool(_addresses(first) & _addresses(second))


def _server(address: Address) -> tuple[object, ...]:
    if path := address.query.get("socket"):
        return (str(Path(path).resolve()),)
    return address.host or "localhost", address.port or PORT


def _addresses(address: Address) -> set[tuple[str | int, int]]:
    """None where the name is unknown, which is told when it is connected to."""
    if address.query.get("socket"):
        return set()
    host, port = address.host or "localhost", address.port or PORT
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return {(where[0], port) for _, _, _, _, where in found}
    return set()
