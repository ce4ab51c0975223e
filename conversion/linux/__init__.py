"""Conversion of Debian, Ubuntu and their kin: the steps, in the order in which they run."""

from __future__ import annotations

from conversion.actions import Step
from conversion.linux.caps import caps
from conversion.linux.cleanup import remove_caches
from conversion.linux.console import add_serial_console, fix_consoles, has_serial_console
from conversion.linux.devices import remap_devices
from conversion.linux.guest_agent import add_guest_agent
from conversion.linux.initramfs_repair import repair
from conversion.linux.kernels import Kernel, choose_kernel, chosen_kernel
from conversion.linux.network import keep_nic_names, named_nics
from conversion.linux.tools import remove_tools
from conversion.linux.uefi import add_fallback_loader
from conversion.linux.x11 import fix_displays
from v2v.errors import GuestError
from v2v.types import GuestOS

SUPPORTED = ("debian", "ubuntu", "linuxmint", "kali")

# Tools go first, for an uninstaller may put files back that later steps correct; the initramfs
# goes last, for it holds copies of what they change.
STEPS: tuple[tuple[str, Step], ...] = (
    ("tools", remove_tools),
    ("kernel", choose_kernel),
    ("console", fix_consoles),
    ("devices", remap_devices),
    ("network", keep_nic_names),
    ("guest-agent", add_guest_agent),
    ("uefi", add_fallback_loader),
    ("x11", fix_displays),
    ("cleanup", remove_caches),
    ("initramfs", repair),
)


def check_supported(os: GuestOS) -> None:
    """Refuse what these steps do not know."""
    if os.type == "linux" and os.distro in SUPPORTED:
        return
    name = os.product or f"{os.type} {os.distro}".strip() or "an unknown system"
    raise GuestError(
        f"conversion of {name} ({os.distro or os.type}) is not supported; "
        f"supported are {', '.join(SUPPORTED)}",
        id="guest-unsupported",
        hint="--no-convert copies the disks without converting the guest",
    )


__all__ = [
    "STEPS",
    "SUPPORTED",
    "Kernel",
    "add_serial_console",
    "caps",
    "check_supported",
    "chosen_kernel",
    "has_serial_console",
    "named_nics",
]
