"""Asking a libvirt, which may be on another host, may hang, and may refuse."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from v2v.errors import HostError, SourceError, V2VError
from v2v.password import read_password
from v2v.patience import in_thread
from v2v.run import Run

T = TypeVar("T")

ANSWER_SECONDS = 120.0  # for all there is to ask; ssh may have to ask the user for a password
# What ssh says when it is not let in; libvirt gives it no code of its own.
SSH_REFUSALS = ("Permission denied (", "Host key verification failed", "Too many authentication")


def ask(
    uri: str | None, password_file: Path | None, answer: Callable[[Any, Any], T], run: Run
) -> T:
    """Connect, and give what `answer` makes of libvirt's module and the connection.

    It must be values only: the connection ends here. Takes ANSWER_SECONDS at most, and ends as
    soon as the job is cancelled. libvirt's own errors become one of ours.
    """
    libvirt = binding()
    password = None if password_file is None else read_password(password_file)
    shown = uri or "libvirt's default host"

    def asked() -> T:
        try:
            connection = _open(libvirt, uri, password)
            try:
                return answer(libvirt, connection)
            finally:
                connection.close()
        except libvirt.libvirtError as exc:
            raise _wrapped(libvirt, exc, shown) from exc

    return _wait_for(asked, shown, run)


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


def _open(libvirt: Any, uri: str | None, password: str | None) -> Any:
    """Read-only: enough for all that is asked, and allowed to more users."""

    def answer(wanted: list[list[Any]], _: object) -> int:
        if password is None:
            return -1
        for credential in wanted:
            credential[4] = password
        return 0

    kinds = [libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT]
    return libvirt.openAuth(uri, [kinds, answer, None], libvirt.VIR_CONNECT_RO)


def _wait_for(action: Callable[[], T], shown: str, run: Run) -> T:
    """Let another thread do it: libvirt's calls cannot be interrupted."""
    try:
        return in_thread(
            action,
            name="libvirt",
            seconds=ANSWER_SECONDS,
            cancel=run.cancel,
            give_up=_end_programs_of,
        )
    except TimeoutError as exc:
        raise _timeout(shown) from exc


def _end_programs_of(thread: threading.Thread) -> None:
    """The ssh that libvirt started in the thread; without it, its call ends with an error."""
    with suppress(OSError):
        children = Path(f"/proc/self/task/{thread.native_id}/children").read_text()
        for pid in children.split():
            os.kill(int(pid), signal.SIGTERM)


# Errors -------------------------------------------------------------------------------------------


def _wrapped(libvirt: Any, exc: Any, shown: str) -> V2VError:
    text, code = str(exc), exc.get_error_code()
    denied = text.endswith("Permission denied") or any(word in text for word in SSH_REFUSALS)
    if denied or code in (
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_OPERATION_DENIED,
    ):
        return SourceError(
            f"{shown} does not let you in: {text}",
            id="libvirt-auth",
            hint="on this host, be root or in the group libvirt; with ssh, log in once by hand, "
            "with a key; qemu+libssh://USER@HOST/system takes the password of -ip FILE",
        )
    return SourceError(
        f"cannot read from {shown}: {text}",
        id="libvirt-failed",
        hint="is libvirt running there, and the address right? "
        "`virsh -c URI list --all` connects as v2v does",
    )


def _timeout(shown: str) -> SourceError:
    return SourceError(
        f"{shown} did not answer within {ANSWER_SECONDS:.0f} s",
        id="libvirt-timeout",
        hint="is the host up, and the address right?",
    )
