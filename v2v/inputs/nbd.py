"""-i nbd: a VM from disks that NBD servers export."""

from __future__ import annotations

from v2v.address import NBD_SCHEMES
from v2v.inputs._plain import PlainInput


class NbdInput(PlainInput):
    mode = "nbd"
    summary = "disks that NBD servers export: nbd://HOST[:PORT]/EXPORT"
    tools = ("nbdkit",)
    schemes = NBD_SCHEMES
