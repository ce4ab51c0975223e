"""VMDK disks read by ourselves, wherever their files are.

`store` says what a place with files must give; `open_disk` makes a disk of a descriptor in it, with
all that belongs to it: parts, parents, tables. From the bottom: `pieces` and `runs` are arithmetic,
`flat`, `tables`, `packed` and `sparse` the kinds of parts, `names` and `chain` put them together.
"""

from __future__ import annotations

from v2v.vmdk.disk import Disk, open_disk
from v2v.vmdk.local import LocalStore
from v2v.vmdk.store import File, Store

__all__ = ["Disk", "File", "LocalStore", "Store", "open_disk"]
