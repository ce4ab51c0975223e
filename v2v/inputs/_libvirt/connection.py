"""Asking a libvirt that VMs are read from: read-only, and with the errors of a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from v2v import libvirt_connection
from v2v.errors import SourceError
from v2v.libvirt_connection import ANSWER_SECONDS, Errors, LibvirtHost, binding
from v2v.password import read_password
from v2v.run import Run

__all__ = ["ANSWER_SECONDS", "ERRORS", "ask", "binding"]

T = TypeVar("T")


def ask(
    uri: str | None, password_file: Path | None, answer: Callable[[Any, Any], T], run: Run
) -> T:
    """What `answer` makes of libvirt's module and a connection: see libvirt_connection.ask."""
    binding()
    password = None if password_file is None else read_password(password_file)
    host = LibvirtHost(uri, ERRORS, lambda: password)
    return libvirt_connection.ask(host, answer, run, seconds=ANSWER_SECONDS)


def _denied(shown: str, text: str) -> SourceError:
    return SourceError(
        f"{shown} does not let you in: {text}",
        id="libvirt-auth",
        hint="on this host, be root or in the group libvirt; with ssh, log in once by hand, "
        "with a key; qemu+libssh://USER@HOST/system takes the password of -ip FILE",
    )


def _failed(shown: str, text: str) -> SourceError:
    return SourceError(
        f"cannot read from {shown}: {text}",
        id="libvirt-failed",
        hint="is libvirt running there, and the address right? "
        "`virsh -c URI list --all` connects as v2v does",
    )


def _silent(shown: str, seconds: float) -> SourceError:
    return SourceError(
        f"{shown} did not answer within {seconds:.0f} s",
        id="libvirt-timeout",
        hint="is the host up, and the address right?",
    )


ERRORS = Errors(_denied, _failed, _silent, refused=_failed)
