"""Places for raw disks that are there before v2v comes: block devices and NBD exports."""

from v2v.targets._base import Opened, Place, probes
from v2v.targets.device import BlockDevice
from v2v.targets.nbd import NbdExport, absolute_uri

__all__ = ["BlockDevice", "NbdExport", "Opened", "Place", "absolute_uri", "probes"]
