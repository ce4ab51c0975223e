"""What conversion does to a guest, as values.

A step looks at the guest and gives actions; nothing is changed until they are applied. `v2v
inspect` shows the actions, `v2v convert` applies them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from conversion.files import is_file
from conversion.guest import Guest
from v2v.errors import GuestError
from v2v.types import Change

log = logging.getLogger(__name__)

# A program of the guest may never end by itself. An initramfs of all modules, rebuilt without KVM,
# was seen to take 23 minutes; the guest's own timeout(1) is in coreutils, which is always there.
TIME_LIMIT = ("timeout", "--kill-after=10", "7200")

Changes: TypeAlias = tuple[Change, ...]


class Action(Protocol):
    @property
    def change(self) -> Change: ...

    def apply(self, guest: Guest) -> Changes:
        """Do it; gives what was changed indeed, nothing if it failed and that was tolerable."""
        ...


class Step(Protocol):
    """A function of one file in conversion/linux: decides, changes nothing."""

    def __call__(self, guest: Guest) -> Iterable[Action]: ...


@contextmanager
def changing(guest: Guest, path: str) -> Iterator[None]:
    """What guestfs raises in the block means that the file cannot be changed."""
    try:
        yield
    except RuntimeError as exc:
        guest.run.cancel.check()
        raise GuestError(
            f"{path} in the guest cannot be changed: {str(exc)[-300:]}",
            id="guest-file-unwritable",
            hint="is it immutable? `chattr -i` it in the source guest, then convert again",
        ) from exc


def in_real_folder(guest: Guest, path: str) -> str:
    """The same path without links in its folder, which is made if there is none.

    The calls of guestfs that run cp, ln or mv follow links as if / were the appliance's own.
    """
    folder, _, name = path.rpartition("/")
    make_folder(guest, folder or "/")
    return f"{guest.g.realpath(folder or '/').rstrip('/')}/{name}"


def make_folder(guest: Guest, path: str) -> None:
    """mkdir_p takes no link to a folder for one."""
    if not guest.g.is_dir(path, followsymlinks=True):
        guest.g.mkdir_p(path)


@dataclass(frozen=True)
class WriteFile:
    """Create or replace a file, keeping the owner and mode of one that was there.

    What is no file makes way: a FIFO would block for ever, a device or a link lead elsewhere.
    """

    path: str
    content: bytes
    change: Change
    mode: int = 0o644  # of a new file

    def apply(self, guest: Guest) -> Changes:
        g = guest.g
        with changing(guest, self.path):
            make_folder(guest, self.path.rsplit("/", 1)[0] or "/")
            existed = is_file(g, self.path)
            if not existed:
                g.rm_f(self.path)
            g.write(self.path, self.content)
            if not existed:
                g.chmod(self.mode, self.path)
        return (self.change,)


@dataclass(frozen=True)
class EditFile:
    """Change the text of a file that exists, whatever earlier actions have made of it."""

    path: str
    edit: Callable[[str], str]
    change: Change

    def apply(self, guest: Guest) -> Changes:
        text = guest.read_text(self.path)
        new = None if text is None else self.edit(text)
        if new is None or new == text:
            return ()
        with changing(guest, self.path):
            guest.g.write(self.path, new.encode("utf-8", "surrogateescape"))
        return (self.change,)


@dataclass(frozen=True)
class CopyFile:
    """Copy a file inside the guest to a name that is not taken; makes the folder."""

    source: str
    path: str
    change: Change

    def apply(self, guest: Guest) -> Changes:
        if guest.exists(self.path):
            return ()
        with changing(guest, self.path):
            guest.g.cp(guest.g.realpath(self.source), in_real_folder(guest, self.path))
        return (self.change,)


@dataclass(frozen=True)
class RemoveFile:
    path: str
    change: Change

    def apply(self, guest: Guest) -> Changes:
        with changing(guest, self.path):
            guest.g.rm_f(self.path)
        return (self.change,)


@dataclass(frozen=True)
class Symlink:
    """A symbolic link at `path` that points to `target`; replaces what was there."""

    path: str
    target: str
    change: Change

    def apply(self, guest: Guest) -> Changes:
        with changing(guest, self.path):
            guest.g.ln_sf(self.target, in_real_folder(guest, self.path))
        return (self.change,)


@dataclass(frozen=True)
class RunInGuest:
    """Run programs of the guest, in the appliance. A failure is a warning unless `fatal`."""

    commands: tuple[tuple[str, ...], ...]
    change: Change
    fatal: bool = False
    failure_id: str = "guest-command-failed"
    hint: str | None = field(default=None)
    environment: tuple[str, ...] = ()  # "NAME=value", beside the appliance's own

    def apply(self, guest: Guest) -> Changes:
        prefix = ("env", *self.environment, *TIME_LIMIT)
        for argv in self.commands:
            try:
                output = guest.command((*prefix, *argv))
                log.debug("%s: %s", argv, output)
            except RuntimeError as exc:  # what guestfs raises when the program fails
                guest.run.cancel.check()
                text = f"{' '.join(argv)} failed in the guest: {str(exc).strip()[-500:]}"
                if self.fatal:
                    raise GuestError(text, id=self.failure_id, hint=self.hint) from exc
                guest.warn(text, id=self.failure_id, hint=self.hint)
                return ()
        return (self.change,)
