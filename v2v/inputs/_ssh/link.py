"""One TCP connection to a host: made, its key checked, logged in, and watched."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from v2v import process
from v2v.errors import SourceError, UsageError
from v2v.inputs._ssh.auth import Login
from v2v.inputs._ssh.config import Settings, settings_of
from v2v.inputs._ssh.hostkeys import (
    HostKey,
    check,
    check_fingerprint,
    is_wanted,
    known_keys,
    preferred,
    wrong_fingerprint,
)
from v2v.inputs._ssh.place import SshPlace
from v2v.texts import clean
from v2v.types import GiB, KiB

# Of what a program writes; a host sends smaller ones if it likes. From paramiko 137 MiB/s with the
# usual 32 KiB, 600 with this.
PACKET = 128 * KiB
REKEY_BYTES = 32 * GiB  # AES; OpenSSH does it after 64 GiB
DEAD_SECONDS = 45.0  # without an answer
MAX_JUMPS = 5
UNACKNOWLEDGED_MS = 45_000

# OpenSSH's first words are fine; noise of the transport's thread is told by our own errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class Unreachable(ConnectionError):
    """No connection, or it broke before we were in."""

    def __init__(self, why: str, *, dropped: bool = False) -> None:
        super().__init__(why)
        self.dropped = dropped  # by an SSH server that may only have too many others


Guard = Callable[[Callable[[], None]], Any]  # Cancel.calling


@contextmanager
def link(place: SshPlace, guard: Guard, *, depth: int = 0) -> Iterator[Any]:
    """A paramiko.Transport that is logged in.

    Raises SourceError `ssh-host-key`, `ssh-login`, UsageError `ssh-config`; Unreachable for what
    another attempt may mend. `guard(unblock)` is a context in which a job's end calls `unblock`.
    """
    check_fingerprint(place.host_key)
    settings = settings_of(place)
    refused: list[HostKey] = []
    while True:
        with ExitStack() as stack:
            transport = _begun(settings, stack, guard, depth, refused)
            if transport is None:
                raise wrong_fingerprint(refused, settings)
            if _verified(transport, place, settings, refused):
                _log_in(Login(transport, settings, place.password_file, jump=depth > 0))
                stack.enter_context(_kept_alive(transport, settings.alive_seconds))
                yield transport
                return


def _log_in(login: Login) -> None:
    try:
        login.run()
    except ConnectionError as exc:
        settings = login.settings
        why = f"{settings.host} port {settings.port}: {_why(exc)}"
        raise Unreachable(why, dropped=True) from exc


def _verified(transport: Any, place: SshPlace, settings: Settings, refused: list[HostKey]) -> bool:
    """False if it is not the wanted key: the host may have that of another kind."""
    offered = transport.get_remote_server_key()
    key = HostKey(offered.get_name(), offered.asbytes())
    if place.host_key is None:
        check(key, known_keys(settings), settings)
        return True
    if is_wanted(key, place.host_key):
        return True
    refused.append(key)
    if transport.host_key_type not in key.algorithms:  # it lies: to ask on would never end
        raise wrong_fingerprint(refused, settings)
    return False


def _begun(
    settings: Settings, stack: ExitStack, guard: Guard, depth: int, refused: list[HostKey]
) -> Any | None:
    """A transport with encryption, and nothing sent yet. None if the host has no other keys."""
    from paramiko import SSHException, Transport
    from paramiko.ssh_exception import IncompatiblePeer

    from v2v.inputs._ssh.pipe import WINDOW, Packets  # with paramiko, which is slow to load

    try:
        end = _socket(settings, stack, guard, depth)
        transport = Transport(
            end,
            default_window_size=WINDOW,
            default_max_packet_size=PACKET,
            packetizer_class=Packets,
        )
        stack.callback(transport.close)
        stack.enter_context(guard(transport.close))
        _choose(transport, settings, refused)
        transport.banner_timeout = transport.handshake_timeout = settings.connect_seconds
        transport.start_client(timeout=2 * settings.connect_seconds)
        transport.get_remote_server_key()  # it may have given up without a word
    except IncompatiblePeer as exc:
        if refused:
            return None
        raise _no_common_algorithm(settings, str(exc)) from exc
    except (SSHException, EOFError, OSError) as exc:
        dropped = _is_dropped(exc) and not settings.proxy_command
        why = f"{settings.host} port {settings.port}: {_why(exc)}"
        raise Unreachable(why, dropped=dropped) from exc
    return transport


def _is_dropped(exc: Exception) -> bool:
    """As sshd does, at once, while more log in than MaxStartups allows: 10, as a rule."""
    ended = any(isinstance(one, (EOFError, ConnectionResetError)) for one in (exc, exc.__context__))
    return ended or "MaxStartups" in str(exc)


def _choose(transport: Any, settings: Settings, refused: list[HostKey]) -> None:
    """Algorithms: fast ciphers, keys that we know; never those of keys that were not wanted."""
    options = transport.get_security_options()
    options.ciphers = settings.ciphers
    options.compression = ("none",)
    known = known_keys(settings)
    gone = [name for key in refused for name in key.algorithms]
    kinds = [name for name in options.key_types if name not in gone]
    options.key_types = preferred(kinds, known)
    transport.packetizer.REKEY_BYTES = REKEY_BYTES


def _socket(settings: Settings, stack: ExitStack, guard: Guard, depth: int) -> Any:
    if settings.jumps:
        return _through(settings, stack, guard, depth)
    if settings.proxy_command:
        return stack.enter_context(process.connected(settings.proxy_command))
    end = socket.create_connection((settings.host, settings.port), settings.connect_seconds)
    stack.callback(end.close)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    return end


def _through(settings: Settings, stack: ExitStack, guard: Guard, depth: int) -> Any:
    """A channel of the last host before it. Neither password nor key of the place is for that."""
    if depth >= MAX_JUMPS:
        raise UsageError(
            f"{settings.shown}: ProxyJump goes through more than {MAX_JUMPS} hosts",
            id="ssh-config",
            hint="does one of them go through itself?",
        )
    place = _jump(settings.jumps[-1])
    if settings.jumps[:-1]:
        raise UsageError(
            f"{settings.shown}: ProxyJump names several hosts",
            id="ssh-config",
            hint="name one, and give it a ProxyJump of its own",
        )
    before = stack.enter_context(link(place, guard, depth=depth + 1))
    there, here = (settings.host, settings.port), ("127.0.0.1", 0)
    return before.open_channel("direct-tcpip", there, here, timeout=settings.connect_seconds)


def _jump(word: str) -> SshPlace:
    """[ssh://][USER@]HOST[:PORT]"""
    user, at, rest = word.strip().removeprefix("ssh://").rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, ""
    return SshPlace(
        host=host.strip("[]"),
        user=user if at else None,
        port=int(port) if port.isdecimal() else None,
    )


@contextmanager
def _kept_alive(transport: Any, seconds: float) -> Iterator[None]:
    """Ask now and then whether the host is there: one that vanished closes no connection."""
    ended = threading.Event()

    def watch() -> None:
        from paramiko import SSHException

        while not ended.wait(seconds) and transport.is_active():
            alarm = threading.Timer(DEAD_SECONDS, transport.close)
            alarm.daemon = True
            alarm.start()
            try:
                transport.global_request("keepalive@openssh.com", wait=True)
            except (SSHException, EOFError, OSError):
                transport.close()  # whoever uses it sees it
            finally:
                alarm.cancel()

    threading.Thread(target=watch, name="v2v-ssh-alive", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _why(exc: BaseException) -> str:
    words = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return clean(str(words))


def _no_common_algorithm(settings: Settings, words: str) -> SourceError:
    return SourceError(
        f"{settings.shown}: the host and v2v have no algorithm in common: {clean(words)}",
        id="ssh-algorithms",
        hint="its SSH server is too old, or allows less than is usual; does ~/.ssh/config "
        "forbid what it has?",
    )
