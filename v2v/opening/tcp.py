"""Disks on TCP: a port for each, from one on.

One qemu-storage-daemon could serve them all on one port, but all in one thread. A fast disk was
read so at 0.5-0.7 GiB/s, against 1.7 GiB/s through an nbdkit of its own; with TLS it was 115 MiB/s
against 200 (two cores, 1 GiB of data in memory, nbdcopy with four connections).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from v2v import nbdkit, process
from v2v.address import Address as Uri
from v2v.endpoint import Endpoint
from v2v.errors import HostError, UsageError
from v2v.opening.place import CLIENT_FILES, Place, Tls, check_tls, tls_error, user_of
from v2v.process import ToolError
from v2v.run import Run

LOOPBACK = "127.0.0.1"
LAST_PORT = 65535
WORD = re.compile(r"(?:(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]+)):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `numbers` are the IP addresses that the host's name stands for."""

    host: str
    port: int
    numbers: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        return all(ipaddress.ip_address(one).is_loopback for one in self.numbers)


def checked(word: str, tls: Tls | None, *, insecure: bool) -> Address:
    """Refuse an address that is none, or at which strangers would read the disks."""
    address = parse(word)
    if tls:
        check_tls(tls)
    elif not address.is_loopback and not insecure:
        raise UsageError(
            f"--tcp {word}: everybody who reaches this address could read the disks",
            id="open-insecure",
            hint="protect it with --tls-psk-file or --tls-certificates; or say --insecure, "
            "if nobody else is on that network",
        )
    if not nbdkit.has_plugin("nbd"):
        raise HostError(
            "nbdkit has no plugin nbd, which --tcp needs",
            id="tool-missing",
            hint="install it: apt-get install nbdkit, or dnf install nbdkit-nbd-plugin",
        )
    return address


def parse(word: str) -> Address:
    """[HOST:]PORT; an IPv6 address is in brackets."""
    match = WORD.fullmatch(word)
    if match is None or not 0 < int(match["port"]) <= LAST_PORT:
        raise UsageError(
            f"--tcp: {word!r} is not [HOST:]PORT",
            id="option-value",
            hint="for example --tcp 10809, --tcp 192.0.2.7:10809 or --tcp [::1]:10809",
        )
    host = match["ipv6"] or match["host"] or LOOPBACK
    return Address(host, int(match["port"]), _numbers(host))


def _numbers(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise UsageError(
            f"--tcp: there is no host {host}", id="option-value", hint="give an IP address"
        ) from exc
    return tuple(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


@contextmanager
def listening(
    address: Address, tls: Tls | None, served: Sequence[Endpoint], names: Sequence[str], run: Run
) -> Iterator[tuple[Place, ...]]:
    """The first disk on the port, the second on the next one, ..."""
    number = _free(address, len(served))
    if not tls and address.is_loopback:
        run.warn(
            f"every user of this host can connect to port {address.port}",
            id="open-local-users",
            hint="--tls-psk-file keeps others out, and so do Unix sockets, without --tcp",
        )
    with ExitStack() as stack:
        places = []
        for index, endpoint in enumerate(served):
            port = address.port + index
            argv = _argv(number, port, tls, endpoint)
            stack.enter_context(_server(argv, f"tcp-{names[index]}", run))
            places.append(Place(_uri(address, port, tls)))
        yield tuple(places)


def _free(address: Address, count: int) -> str:
    """The first of the addresses at which all ports are free."""
    if address.port + count - 1 > LAST_PORT:
        raise UsageError(
            f"--tcp {address.port}: {count} disks need as many ports, from that one on",
            id="option-value",
            hint="choose a lower port",
        )
    for number in address.numbers:
        for port in range(address.port, address.port + count):
            try:
                _try(number, port)
            except OSError as exc:
                failure = _cannot_listen(f"{address.host} port {port}", exc.strerror or str(exc))
                break
        else:
            return number
    raise failure


def _try(number: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in number else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((number, port))
        one.listen()


def _cannot_listen(where: str, cause: str) -> HostError:
    return HostError(
        f"cannot listen on {where}: {cause}",
        id="open-port",
        hint="several disks need several ports, one after the other; choose another with --tcp",
    )


def _argv(number: str, port: int, tls: Tls | None, endpoint: Endpoint) -> list[str]:
    argv = ["nbdkit", "--foreground", "--ipaddr", number, "--port", str(port)]
    if endpoint.read_only:
        argv.append("--readonly")
    if tls:
        argv.append("--tls=require")
    if tls and tls.psk_file:
        argv.append(f"--tls-psk={tls.psk_file}")
    if tls and tls.certificates:  # who has no certificate is a stranger
        argv += [f"--tls-certificates={tls.certificates}", "--tls-verify-peer"]
    argv += ["nbd", f"socket={endpoint.socket}"]
    return [*argv, f"export={endpoint.export}"] if endpoint.export else argv


@contextmanager
def _server(argv: list[str], name: str, run: Run) -> Iterator[None]:
    pid_file, log_file = run.tmp / f"{name}.pid", run.folder / "log" / f"{name}.log"
    argv = [argv[0], "--pidfile", str(pid_file), *argv[1:]]
    with process.server(argv, log_file=log_file) as server:
        try:
            process.wait_until_ready(pid_file, server, log_file, cancel=run.cancel)
        except ToolError as exc:
            if "GnuTLS" in exc.message:
                raise tls_error(exc.message) from exc
            raise _cannot_listen(f"port {argv[argv.index('--port') + 1]}", exc.message) from exc
        yield


def _uri(address: Address, port: int, tls: Tls | None) -> str:
    """As a client on this host can use it: the files of TLS may be elsewhere on others."""
    uri = Uri("nbds" if tls else "nbd", address.host, port, path="/")
    if tls and tls.psk_file:
        query = {"tls-psk-file": str(tls.psk_file)}
        uri = replace(uri, user=user_of(tls.psk_file), query=query)
    folder = tls.certificates if tls else None
    if folder and all((folder / name).is_file() for name in CLIENT_FILES):
        uri = replace(uri, query={"tls-certificates": str(folder)})
    return uri.write()
