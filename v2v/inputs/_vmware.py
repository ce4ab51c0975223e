"""What the sources of VMware have in common: generation ids, sound cards, datastores' paths."""

from __future__ import annotations

import struct
import uuid

# libvirt's names of sound cards, by VMware's own.
SOUND_CARDS = {"sb16": "sb16", "es1371": "es1370", "ensoniq1371": "es1370", "hdaudio": "ich6"}

VOLUMES = "/vmfs/volumes"  # where an ESXi host has its datastores


def datastore_of(path: str) -> str | None:
    """The datastore that a path of an ESXi host leads to: its name, or the UUID in its place."""
    return path.partition(f"{VOLUMES}/")[2].partition("/")[0] or None


def genid_of(first: int | None, second: int | None) -> str | None:
    """vm.genid and vm.genidX are signed numbers, which the guest sees as they are. QEMU turns the
    bytes of a UUID's first three parts around, so that the same number is another text there."""
    if first is None or second is None or not (first or second):
        return None
    try:
        return str(uuid.UUID(bytes_le=struct.pack("<qq", first, second)))
    except struct.error:
        return None
