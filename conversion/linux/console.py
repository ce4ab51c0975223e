"""Consoles: where Xen's were used, the serial port takes their place.

Also what the boot check needs: whether the kernel already tells its boot to the serial port, and
making a throw-away copy do so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from conversion.actions import Action, EditFile, RemoveFile, Symlink
from conversion.guest import Guest
from conversion.linux import grub
from v2v.types import Change

XEN_CONSOLE = re.compile(r"\b[xh]vc0\b")
WHY = "KVM gives the guest a serial port instead of Xen's console"
WANTS = "/etc/systemd/system/getty.target.wants"
SERIAL = ("console=tty0", "console=ttyS0,115200", "loglevel=7")


def console_words(words: list[str]) -> list[str]:
    """A kernel's command line with Xen's console replaced; none is named twice."""
    result: list[str] = []
    for word in words:
        new = XEN_CONSOLE.sub("ttyS0", word) if word.startswith("console=") else word
        if new == word or new not in result:
            result.append(new)
    return result


def inittab(text: str) -> str:
    """Gettys on Xen's console move to ttyS0, or go if there is one already."""
    has_serial = re.search(r"(?m)^[^#\n]*:respawn:.*\bttyS0\b", text) is not None
    lines = []
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("#") or not XEN_CONSOLE.search(line):
            lines.append(line)
        elif not has_serial:
            lines.append(XEN_CONSOLE.sub("ttyS0", line))
            has_serial = True
    return "".join(lines)


def securetty(text: str) -> str:
    lines = text.splitlines()
    if "ttyS0" in (line.strip() for line in lines):
        return text
    new = [*lines, "ttyS0"] if any(XEN_CONSOLE.fullmatch(line.strip()) for line in lines) else lines
    return "\n".join(new) + "\n" if new != lines else text


def fix_consoles(guest: Guest) -> Iterable[Action]:
    """Step: Xen's consoles become ttyS0 in inittab, securetty, systemd and the boot menu."""
    edits = [("/etc/inittab", inittab), ("/etc/securetty", securetty)]
    edits += [(path, _menu) for path in grub.menu_files(guest)]
    edits += [(path, _settings) for path in grub.settings_files(guest)]
    for path, edit in edits:
        text = guest.read_text(path)
        if text is not None and edit(text) != text:
            yield EditFile(path, edit, Change("Moved the console to ttyS0", WHY, path))
    for name in ("hvc0", "xvc0"):
        unit = f"{WANTS}/serial-getty@{name}.service"
        if guest.g.is_symlink(unit):
            new = f"{WANTS}/serial-getty@ttyS0.service"
            change = Change("Moved the login prompt to ttyS0", WHY, unit)
            yield RemoveFile(unit, change)
            yield Symlink(new, "/lib/systemd/system/serial-getty@.service", change)


def _menu(text: str) -> str:
    return grub.edit_arguments(text, console_words)


def _settings(text: str) -> str:
    return grub.edit_settings(text, console_words)


# The boot check -----------------------------------------------------------------------------------


def tells_serial(arguments: str) -> bool:
    """Whether a kernel started so logs its whole boot to the first serial port."""
    words = arguments.split()
    serial = any(re.fullmatch(r"console=ttyS0(,.*)?", word) for word in words)
    return serial and "quiet" not in words and not _low_level(words)


def _low_level(words: Iterable[str]) -> bool:
    return any((m := re.fullmatch(r"loglevel=(\d)", word)) and int(m[1]) < 5 for word in words)


def serial_words(words: list[str]) -> list[str]:
    """A command line that logs everything to the first serial port."""
    dropped = re.compile(r"quiet|splash|console=.*|loglevel=.*|vt\.handoff=.*|\$vt_handoff")
    return [word for word in words if not dropped.fullmatch(word)] + list(SERIAL)


def has_serial_console(guest: Guest) -> bool:
    entry = grub.booted_entry(guest)
    return entry is not None and tells_serial(entry.arguments)


def add_serial_console(guest: Guest) -> None:
    """Make every kernel of the boot menu log to ttyS0. For throw-away copies only."""
    change = Change("Logged the boot to ttyS0", "the boot check reads it there")
    for path in grub.menu_files(guest):
        EditFile(path, lambda text: grub.edit_arguments(text, serial_words), change).apply(guest)
