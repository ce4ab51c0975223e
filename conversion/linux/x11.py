"""X11 configurations that ask for another hypervisor's graphics."""

from __future__ import annotations

import re
from collections.abc import Iterable

from conversion.actions import Action, EditFile
from conversion.guest import Guest
from v2v.types import Change

DRIVER = re.compile(r"(?im)^([ \t]*Driver[ \t]+)\"(?:vmware|vboxvideo|fglrx|prlvideo|cirrus)\"")
FILES = ("/etc/X11/xorg.conf", "/etc/X11/xorg.conf.d/*.conf")


def modesetting(text: str) -> str:
    """The text with the driver that works with any graphics the kernel knows."""
    return DRIVER.sub(r'\1"modesetting"', text)


def fix_displays(guest: Guest) -> Iterable[Action]:
    """Step: let X use the graphics there are."""
    for path in (path for pattern in FILES for path in guest.glob(pattern)):
        text = guest.read_text(path) or ""
        if modesetting(text) != text:
            why = "the graphics card it names is another hypervisor's"
            yield EditFile(path, modesetting, Change("Let X use the kernel's graphics", why, path))
