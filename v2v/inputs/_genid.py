"""The generation id of a VM of VMware: two numbers, in its .vmx file or in an OVF descriptor."""

from __future__ import annotations

import struct
import uuid


def genid_of(first: int | None, second: int | None) -> str | None:
    """vm.genid and vm.genidX are signed numbers, which the guest sees as they are. QEMU turns the
    bytes of a UUID's first three parts around, so that the same number is another text there."""
    if first is None or second is None or not (first or second):
        return None
    try:
        return str(uuid.UUID(bytes_le=struct.pack("<qq", first, second)))
    except struct.error:
        return None
