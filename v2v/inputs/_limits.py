"""How much memory and how many processors a VM can have, whatever tells of it."""

from __future__ import annotations

from v2v.run import Run
from v2v.texts import size_text
from v2v.types import GiB, KiB, MiB

MIN_MEMORY, MAX_MEMORY = MiB, 64 * KiB * GiB  # bytes
DEFAULT_MEMORY = 2 * GiB  # VMware itself would give a .vmx without 32 MiB: hardly anything boots
MAX_VCPUS = 4096


def assumed_memory(name: str, run: Run) -> int:
    """Bytes for a VM whose memory `name` does not tell; warns of it."""
    run.warn(
        f"{name} does not tell the VM's memory: {size_text(DEFAULT_MEMORY)} is assumed",
        id="memory-unknown",
        hint="correct it in the target's description",
    )
    return DEFAULT_MEMORY
