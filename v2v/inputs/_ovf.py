"""OVF descriptors, in the dialect of every vendor."""

from __future__ import annotations

from dataclasses import dataclass

from v2v.inputs._ovf_disks import OvfDisk
from v2v.run import Run
from v2v.types import Source

__all__ = ["Ovf", "OvfDisk", "read_ovf"]


@dataclass(frozen=True, slots=True)
class Ovf:
    """The VM of a descriptor. `source.disks` is empty: the descriptor does not hold the images."""

    source: Source  # its `input` is "ova"
    disks: tuple[OvfDisk, ...]  # in the order in which the guest sees them


def read_ovf(data: bytes, name: str, run: Run) -> Ovf:
    """Read a descriptor; `name` is how messages call it. Opens no file."""
    raise NotImplementedError
