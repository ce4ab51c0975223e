"""GRUB's configuration, as text: what it boots by default, and edits to its command lines.

Edits go to the generated grub.cfg and to /etc/default/grub alike, so that nothing has to be
generated in the appliance (slow without KVM, and wrong for UEFI guests there), and the guest's own
next update-grub gives the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from conversion.guest import Guest

GRUB_CFG = "/boot/grub/grub.cfg"
MENU_LST = "/boot/grub/menu.lst"
DEFAULT_GRUB = "/etc/default/grub"
GRUBENV = "/boot/grub/grubenv"
GRUBENV_SIZE = 1024  # bytes, always
MAX_DEPTH = 50  # of menus and blocks inside each other

_MENU = re.compile(r"^\s*(menuentry|submenu)\s+('(?:[^']|'\\'')*'|\"(?:[^\"\\]|\\.)*\"|\S+)")
_ID = re.compile(r"(?:\$menuentry_id_option|--id)[ =]+('[^']*'|\"[^\"]*\"|\S+)")
_LINUX = re.compile(r"^([ \t]*linux(?:16|efi)?[ \t]+)(\S+)((?:[ \t].*)?)$", re.MULTILINE)
_LEGACY_KERNEL = re.compile(
    r"^([ \t]*kernel[ \t]+|# (?:xen)?kopt=)(\S+)((?:[ \t].*)?)$", re.MULTILINE
)
_SETTING = re.compile(
    r"^([ \t]*(?:export[ \t]+)?GRUB_CMDLINE_LINUX\w*=)(\"[^\"\n]*\"|'[^'\n]*'|[^\s#]*)",
    re.MULTILINE,
)
_SET_DEFAULT = re.compile(r"^([ \t]*set default=)(\"[^\"\n]*\"|'[^'\n]*'|\S*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MenuEntry:
    title: str
    id: str
    names: tuple[frozenset[str], ...]  # number, title and id in each menu on the way to it
    path: str  # what GRUB_DEFAULT can hold to mean it: ids, or titles, joined by ">"
    kernel: str  # the kernel's path as GRUB sees it
    arguments: str


@dataclass(slots=True)
class _Open:
    kind: str
    title: str = ""
    id: str = ""
    names: tuple[frozenset[str], ...] = ()
    path: str = ""
    count: int = 0  # entries seen inside
    kernel: str = ""
    arguments: str = ""


def menu_entries(text: str) -> list[MenuEntry]:
    """The entries of a grub.cfg that boot a Linux kernel, in order."""
    found: list[MenuEntry] = []
    stack = [_Open("submenu")]
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        if len(stack) > MAX_DEPTH:
            break
        if match := _MENU.match(line):
            stack.append(_opened(line, match, _menu_above(stack)))
        elif stripped.endswith("{"):
            stack.append(_Open("block"))
        elif stripped == "}":
            if len(stack) > 1:
                closed = stack.pop()
                if closed.kind == "menuentry" and closed.kernel:
                    found.append(_entry(closed))
        elif (match := _LINUX.match(line)) and not stack[-1].kernel:
            stack[-1].kernel, stack[-1].arguments = match[2], match[3].strip()
    return found


def _menu_above(stack: list[_Open]) -> _Open:
    return next(o for o in reversed(stack) if o.kind == "submenu")


def _opened(line: str, match: re.Match[str], menu: _Open) -> _Open:
    title = _unquote(match[2])
    found = _ID.search(line)
    ident = _unquote(found[1]) if found else ""
    names = (*menu.names, frozenset({str(menu.count), title, ident} - {""}))
    menu.count += 1
    path = f"{menu.path}>{ident or title}" if menu.path else ident or title
    return _Open(match[1], title, ident, names, path)


def _entry(o: _Open) -> MenuEntry:
    return MenuEntry(o.title, o.id, o.names, o.path, o.kernel, o.arguments)


def _unquote(word: str) -> str:
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1].replace("'\\''", "'")
    return word


def parse_grubenv(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {k: v for k, _, v in (line.partition("=") for line in lines) if _}


def default_choice(text: str, environment: Mapping[str, str]) -> str:
    """What grub.cfg sets `default` to; the entry saved in grubenv where it says so."""
    chosen = "0"
    for match in _SET_DEFAULT.finditer(text):
        value = _unquote(match[2])
        if value == "${saved_entry}":
            chosen = environment.get("saved_entry", "0") or "0"
        elif "$" not in value:
            chosen = value
    return chosen


def default_entry(text: str, environment: Mapping[str, str]) -> MenuEntry | None:
    """The entry that boots when nobody touches a key; GRUB takes the first for an unknown one."""
    entries = menu_entries(text)
    if not entries:
        return None
    return find_entry(entries, default_choice(text, environment)) or entries[0]


def find_entry(entries: Iterable[MenuEntry], choice: str) -> MenuEntry | None:
    """The entry a GRUB_DEFAULT value means: a number, title or id in each menu, with ">" between.

    A value that means a submenu means the first entry in it.
    """
    words = [word.strip() for word in choice.split(">")]
    for entry in entries:
        if len(words) <= len(entry.names) and all(map(_in, words, entry.names)):
            return entry
    return None


def _in(word: str, names: frozenset[str]) -> bool:
    return word in names


def set_default(text: str, path: str) -> str:
    """grub.cfg with another default entry."""

    def replace(match: re.Match[str]) -> str:
        return match[0] if "next_entry" in match[2] else f'{match[1]}"{path}"'

    return _SET_DEFAULT.sub(replace, text)


def set_default_setting(text: str, path: str) -> str:
    """/etc/default/grub with another GRUB_DEFAULT."""
    line = f'GRUB_DEFAULT="{path}"'
    new, count = re.subn(r"(?m)^[ \t]*GRUB_DEFAULT=.*$", lambda _: line, text)
    return new if count else f"{text.rstrip()}\n{line}\n"


# Command lines ------------------------------------------------------------------------------------

Words = Callable[[list[str]], list[str]]


def edit_arguments(text: str, change: Words) -> str:
    """grub.cfg or menu.lst with `change` applied to the words of each kernel's command line."""

    def replace(match: re.Match[str]) -> str:
        before = match[3].split()
        after = change(before)
        if after == before:
            return match[0]
        return f"{match[1]}{match[2]}{''.join(f' {word}' for word in after)}"

    return _LEGACY_KERNEL.sub(replace, _LINUX.sub(replace, text))


def edit_settings(text: str, change: Words) -> str:
    """/etc/default/grub with `change` applied to the words of each GRUB_CMDLINE_LINUX*."""

    def replace(match: re.Match[str]) -> str:
        value = match[2]
        quote = value[0] if value[:1] in ("'", '"') else ""
        before = value.strip("'\"").split()
        after = change(before)
        if after == before:
            return match[0]
        joined = " ".join(after)
        quote = quote or ('"' if len(after) != 1 else "")
        return f"{match[1]}{quote}{joined}{quote}"

    return _SETTING.sub(replace, text)


# The guest's files --------------------------------------------------------------------------------


def menu_files(guest: Guest) -> list[str]:
    """The files GRUB reads its menu from: grub.cfg, or GRUB legacy's menu.lst.

    The stubs below EFI/ that only point at grub.cfg hold no entries and are left out.
    """
    found = [path for path in (GRUB_CFG, "/boot/grub2/grub.cfg", MENU_LST) if guest.exists(path)]
    for path in guest.glob("/boot/efi/EFI/*/grub.cfg"):
        if "menuentry" in (guest.read_text(path) or ""):
            found.append(path)
    return found


def settings_files(guest: Guest) -> list[str]:
    """/etc/default/grub and its fragments."""
    return [
        path
        for path in (DEFAULT_GRUB, *guest.glob("/etc/default/grub.d/*.cfg"))
        if guest.exists(path)
    ]


def booted_entry(guest: Guest) -> MenuEntry | None:
    """The menu entry that the guest boots by default, of GRUB 2 or GRUB legacy."""
    environment = parse_grubenv(guest.read_text(GRUBENV) or "")
    for path in menu_files(guest):
        text = guest.read_text(path) or ""
        entry = legacy_default(text) if path == MENU_LST else default_entry(text, environment)
        if entry:
            return entry
    return None


def legacy_entries(text: str) -> list[MenuEntry]:
    """The entries of a menu.lst."""
    found: list[MenuEntry] = []
    blocks = re.split(r"(?m)^title[ \t]+", text)[1:]
    for number, block in enumerate(blocks):
        title = block.splitlines()[0].strip() if block else ""
        match = re.search(r"(?m)^[ \t]*kernel[ \t]+(?:--\S+[ \t]+)*(\S+)(.*)$", block)
        if match:
            path = re.sub(r"^\(hd\d+,\d+\)", "", match[1])
            names = (frozenset({str(number)}),)
            found.append(MenuEntry(title, "", names, str(number), path, match[2].strip()))
    return found


def legacy_default(text: str) -> MenuEntry | None:
    entries = legacy_entries(text)
    match = re.search(r"(?m)^default[ \t]*=?[ \t]*(\d+)", text)
    choice = match[1] if match else "0"
    return find_entry(entries, choice) or (entries[0] if entries else None)


def set_legacy_default(text: str, number: str) -> str:
    new, count = re.subn(r"(?m)^default\b.*$", f"default\t\t{number}", text)
    return new if count else f"default\t\t{number}\n{text}"
