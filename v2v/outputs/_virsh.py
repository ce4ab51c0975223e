"""How a guest is started from its libvirt XML."""

from __future__ import annotations

import shlex
from pathlib import Path


def start_command(name: str, description: Path) -> str:
    define = f"virsh define {shlex.quote(str(description))}"
    return f"{define} && virsh start --domain {shlex.quote(name)}"
