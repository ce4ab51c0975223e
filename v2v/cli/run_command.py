"""`--run`: the user's command line, what is put into it, and the signals while it runs.

A guest's name is hostile, and a command line may have a quote on either side of it. So no value is
ever put into the command line: only names of variables are, which the shell never reads as syntax,
and which reach shells inside shells too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from v2v import process
from v2v.cancel import Cancel
from v2v.errors import UsageError

if TYPE_CHECKING:
    from v2v.opening import OpenedGuest

OURS = re.compile(r"@@|\{(?P<word>name|uris|files|(?P<kind>uri|file)(?P<number>[0-9]{0,4}))\}")


def check(command: str, *, files: bool) -> None:
    """Refuse what is known to be wrong before anything is opened."""
    asked = next((m for m in OURS.finditer(command) if (m["word"] or "").startswith("file")), None)
    if asked and not files:
        raise UsageError(
            f"--run: {asked[0]} needs --fuse, which makes the files",
            id="option-value",
            hint="give a folder with --fuse, or write {uri}",
        )


def variables(opened: OpenedGuest, name: str) -> dict[str, str]:
    """The environment of the command. `name` is the guest's, fit for a file name."""
    values = {"V2V_NAME": name}
    for number, disk in enumerate(opened.disks):
        values[f"V2V_URI{number}"] = disk.uri
        values[f"V2V_ADD{number}"] = disk.libguestfs_uri
        if disk.file:
            values[f"V2V_FILE{number}"] = str(disk.file)
    return values


def substituted(command: str, count: int) -> str:
    """The command line for a guest of `count` disks. Braces that are not ours stay."""

    def variable(match: re.Match[str]) -> str:
        word = match["word"]
        if word is None:
            return " ".join(f'-a "$V2V_ADD{number}"' for number in range(count))
        if word == "name":
            return '"$V2V_NAME"'
        if word in ("uris", "files"):
            kind = word[:-1].upper()
            return " ".join(f'"$V2V_{kind}{number}"' for number in range(count))
        number = int(match["number"] or 0)
        if number >= count:
            raise UsageError(
                f"--run: {match[0]}: the last disk is number {count - 1}, the first 0",
                id="option-value",
                hint="{uris} and {files} are all of them",
            )
        return f'"$V2V_{match["kind"].upper()}{number}"'

    return OURS.sub(variable, command)


class Command:
    """A command line that runs once; signals are for it while it does."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, command: str, values: dict[str, str], cancel: Cancel) -> int:
        """Its exit code as a shell tells it: 128 and the signal's number if one ended it."""
        cancel.check()
        with ExitStack() as stack:
            with self._lock:  # a signal that comes as it starts is for it already
                running = stack.enter_context(process.shell(command, values))
                self._process = running
            stack.enter_context(cancel.calling(running.terminate))
            code = running.wait()
            with self._lock:
                self._process = None
        return code if code >= 0 else 128 - code

    def take(self, signum: int) -> bool:
        """Pass a signal on to the command; false if it does not run."""
        with self._lock:
            if self._process is None:
                return False
            if signum != signal.SIGINT or not _terminal_told():
                for pid in _family(self._process.pid):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signum)
            return True


def _terminal_told() -> bool:
    """Whether Ctrl-C at the terminal reaches us, and so the command too, which is in our group."""
    try:
        with Path("/dev/tty").open("rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _family(pid: int) -> list[int]:
    """A process and its descendants: a shell that is ended does not end what it waits for."""
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
    return found
