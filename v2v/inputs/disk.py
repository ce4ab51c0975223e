"""-i disk: a VM from its disk files, block devices, NBD exports or web addresses."""

from __future__ import annotations

from v2v.inputs._plain import PlainInput


class DiskInput(PlainInput):
    mode = "disk"
    aliases = ("local",)
    summary = "disk images, block devices, NBD exports or web addresses"
