"""Units of an OVF descriptor: "byte * 2^20", "MegaBytes", "GB"."""

from __future__ import annotations

import re

from v2v.types import GiB, KiB, MiB

# As OVF's writers mean them: none of them counts in thousands.
NAMES = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **dict.fromkeys(("kb", "kib", "kilobyte", "kilobytes"), KiB),
    **dict.fromkeys(("mb", "mib", "megabyte", "megabytes"), MiB),
    **dict.fromkeys(("gb", "gib", "gigabyte", "gigabytes"), GiB),
    **dict.fromkeys(("tb", "tib", "terabyte", "terabytes"), KiB * GiB),
}
FACTOR = re.compile(r"([0-9]{1,10})(?:\^([0-9]{1,2}))?", re.ASCII)
MAX_LENGTH = 40  # characters; "byte * 2^20" has 11
MAX_UNIT = 1 << 70


def unit_size(text: str) -> int | None:
    """How many bytes one unit is; None for a unit that is not understood. Nothing is bytes."""
    if len(text) > MAX_LENGTH:
        return None
    name, *factors = "".join(text.lower().split()).split("*")
    size = NAMES.get(name)
    for factor in factors:
        power = FACTOR.fullmatch(factor)
        if size is None or power is None:
            return None
        size *= int(power[1]) ** int(power[2] or 1)
    return size if size and size <= MAX_UNIT else None
