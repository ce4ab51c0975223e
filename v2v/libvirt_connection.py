"""Asking a libvirt, which may be on another host, may hang, and may refuse.

What is read from a libvirt and what is written to one fail with errors of their own: `Errors`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from v2v.errors import HostError, V2VError
from v2v.patience import in_thread
from v2v.run import Run

T = TypeVar("T")

ANSWER_SECONDS = 120.0  # for all there is to ask; ssh may have to ask the user for a password
# What ssh says when it is not let in; libvirt gives it no code of its own.
SSH_REFUSALS = ("Permission denied (", "Host key verification failed", "Too many authentication")


@dataclass(frozen=True, slots=True)
class Errors:
    """What to raise: each is given the URI, and libvirt's words or the seconds it had."""

    denied: Callable[[str, str], V2VError]
    failed: Callable[[str, str], V2VError]
    silent: Callable[[str, float], V2VError]
    refused: Callable[[str, str], V2VError]  # it answers, and cannot do what it was asked


@dataclass(frozen=True, slots=True)
class LibvirtHost:
    """Which libvirt, and how to be let in. `uri` None: libvirt's default."""

    uri: str | None
    errors: Errors
    password: Callable[[], str | None]  # asked for when libvirt asks
    user: str | None = None
    read_only: bool = True  # enough to look at it, and allowed to more users

    @property
    def shown(self) -> str:
        return self.uri or "libvirt's default host"


def ask(
    host: LibvirtHost,
    answer: Callable[[Any, Any], T],
    run: Run,
    *,
    seconds: float = ANSWER_SECONDS,
) -> T:
    """Connect, and give what `answer` makes of libvirt's module and the connection.

    It must be values only: the connection ends here. Takes `seconds` at most, and ends as soon as
    the job is cancelled. libvirt's own errors become one of ours.
    """
    libvirt = binding()

    def asked() -> T:
        with wrapping(libvirt, host, host.errors.failed):
            connection = connect(libvirt, host)
        try:
            with wrapping(libvirt, host, host.errors.refused):
                return answer(libvirt, connection)
        finally:
            connection.close()

    try:
        # Another thread does it: libvirt's calls cannot be interrupted.
        return in_thread(
            asked, name="libvirt", seconds=seconds, cancel=run.cancel, give_up=end_programs_of
        )
    except TimeoutError as exc:
        raise host.errors.silent(host.shown, seconds) from exc


def binding() -> Any:
    """libvirt's Python binding, which from now on prints no errors by itself."""
    try:
        import libvirt
    except ImportError as exc:
        raise HostError(
            "the Python binding of libvirt is not installed",
            id="binding-missing",
            hint="install it: apt-get install python3-libvirt, or dnf install python3-libvirt",
        ) from exc
    libvirt.registerErrorHandler(_be_silent, None)
    return libvirt


def _be_silent(context: object, error: object) -> None:
    """Errors come as exceptions, too."""


def connect(libvirt: Any, host: LibvirtHost) -> Any:
    """A connection of the binding's. To be called where it may hang; raises libvirtError."""

    def answer(wanted: list[list[Any]], _: object) -> int:
        for credential in wanted:
            is_user = credential[0] in (libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_USERNAME)
            word = host.user if is_user else host.password()
            if word is None:
                return -1
            credential[4] = word
        return 0

    kinds = [libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT]
    if host.user is not None:
        kinds += [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_USERNAME]
    flags = libvirt.VIR_CONNECT_RO if host.read_only else 0
    return libvirt.openAuth(host.uri, [kinds, answer, None], flags)


def end_programs_of(thread: threading.Thread) -> None:
    """The ssh that libvirt started in the thread; without it, its call ends with an error."""
    with suppress(OSError):
        children = Path(f"/proc/self/task/{thread.native_id}/children").read_text()
        for pid in children.split():
            os.kill(int(pid), signal.SIGTERM)


@contextmanager
def wrapping(
    libvirt: Any, host: LibvirtHost, otherwise: Callable[[str, str], V2VError]
) -> Iterator[None]:
    """libvirt's errors as ours: `denied`, and `otherwise`."""
    try:
        yield
    except libvirt.libvirtError as exc:
        tell = host.errors.denied if is_denied(libvirt, exc) else otherwise
        raise tell(host.shown, str(exc)) from exc


def is_denied(libvirt: Any, exc: Any) -> bool:
    text = str(exc)
    if text.endswith("Permission denied") or any(word in text for word in SSH_REFUSALS):
        return True
    return exc.get_error_code() in (
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_ACCESS_DENIED,
    )
