"""Passwords: from the file that -ip or -op names, from the environment, or from the user at the
terminal. Those of an output have a variable of their own."""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2v.errors import UsageError
from v2v.process import OUTPUT_PASSWORD_VARIABLE, PASSWORD_VARIABLE

TERMINAL = Path("/dev/tty")

_answers: dict[str, str] = {}  # what the user has been asked for
_streams: dict[Path, str] = {}  # what came from files that can be read once: <(pass show esxi)
_refused: set[tuple[str, str]] = set()  # who, and a password that was wrong
_asking = threading.Lock()
_reading = threading.Lock()


def read_password(file: Path, *, flag: str = "-ip") -> str:
    """The first line, as nbdkit reads it. `flag` names the option in errors."""
    try:
        with _reading:
            if file in _streams:
                return _streams[file]
            word = file.read_text(errors="surrogateescape").split("\n")[0]
            if not file.is_file():
                _streams[file] = word
            return word
    except OSError as exc:
        raise UsageError(
            f"{flag} {file}: cannot be read: {exc.strerror}",
            id="password-file",
            hint="name a file whose first line is the password",
        ) from exc


def given_password(file: Path | None, *, what: str, environment: bool = True) -> str | None:
    """What is known without asking: from the file, from V2V_PASSWORD, or asked for before."""
    if file is not None:
        return read_password(file)
    return (environment and _of_environment(PASSWORD_VARIABLE)) or _answers.get(what)


def find_password(file: Path | None, *, what: str, environment: bool = True) -> str | None:
    """The same, or what the user types when asked; None where there is nobody to ask.

    what: "root@esxi"; each is asked for once in a process, however many threads want it.
    """
    with _asking:
        found = given_password(file, what=what, environment=environment)
        if found is None and (found := _ask(what)) is not None:
            _answers[what] = found
        return found


def output_password(file: Path | None, *, what: str) -> str | None:
    """The password for a target: from -op, V2V_OUTPUT_PASSWORD, or asked for; None: nobody told.

    what: "admin@internal@engine", for the question.
    """
    if file is not None:
        return read_password(file, flag="-op")
    with _asking:
        found = _of_environment(OUTPUT_PASSWORD_VARIABLE) or _answers.get(what)
        if found is None and (found := _ask(what)) is not None:
            _answers[what] = found
        return found


def is_output_password_set() -> bool:
    """Whether V2V_OUTPUT_PASSWORD is, or was when it was first looked at."""
    return bool(_of_environment(OUTPUT_PASSWORD_VARIABLE))


def forget_password(what: str) -> None:
    """It was wrong: ask anew."""
    _answers.pop(what, None)


def refuse_password(what: str, word: str) -> None:
    """It was wrong, and is not to be tried again: hosts lock accounts after a few failures."""
    _refused.add((what, word))


def is_refused(what: str, word: str) -> bool:
    return (what, word) in _refused


def hide_passwords() -> None:
    """Take those of the environment out of it, before a library starts a program."""
    for variable in (PASSWORD_VARIABLE, OUTPUT_PASSWORD_VARIABLE):
        _of_environment(variable)


@contextmanager
def password_as_file(text: str) -> Iterator[Path]:
    """A file in memory, for programs that we start and that read a password from a file.

    It is there within the block, for processes of the same user; without the end of a line, which
    QEMU would take for a part of the password.
    """
    fd = os.memfd_create("v2v-password")
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)


def _of_environment(variable: str) -> str | None:
    """It is taken out: libraries start programs, too, which would inherit it."""
    word = os.environ.pop(variable, None)
    if word:
        _answers[variable] = word
    return _answers.get(variable)


def _ask(what: str) -> str | None:
    """At the terminal that we run in, whatever stdin is."""
    try:
        with TERMINAL.open("r+b", buffering=0):
            pass  # there is one; else getpass would read stdin
        return getpass.getpass(f"Password of {what}: ") or None
    except (OSError, EOFError):
        return None
