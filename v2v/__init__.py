"""v2v moves virtual machines to KVM.

    import v2v
    result = v2v.convert("/srv/export/web1.vmdk", storage="/var/lib/libvirt/images", boot_check=300)

The names below are resolved when they are first used, so that `import v2v` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "convert": "v2v.api",
    "inspect": "v2v.api",
    "resume": "v2v.api",
    "discard": "v2v.api",
    "limit_bandwidth": "v2v.api",
    "list_guests": "v2v.api",
    "list_jobs": "v2v.api",
    "undo": "v2v.api",
    "GuestSummary": "v2v.types",
    "SourceChange": "v2v.types",
    "open_disks": "v2v.api",
    "copy_image": "v2v.image_copy",
    "checksum": "v2v.image_copy",
    "CopiedImage": "v2v.image_copy",
    "OpenedDisk": "v2v.opening",
    "OpenedGuest": "v2v.opening",
    "Result": "v2v.api",
    "JobSummary": "v2v.api",
    "Inspection": "v2v.converter",
    "ConversionOptions": "v2v.job",
    "CopyOptions": "v2v.job",
    "NicMap": "v2v.job",
    "StorageMap": "v2v.job",
    "Cancel": "v2v.cancel",
    "Event": "v2v.events",
    "V2VError": "v2v.errors",
}

__all__ = [
    "Cancel",
    "ConversionOptions",
    "CopiedImage",
    "CopyOptions",
    "Event",
    "GuestSummary",
    "Inspection",
    "JobSummary",
    "NicMap",
    "OpenedDisk",
    "OpenedGuest",
    "Result",
    "SourceChange",
    "StorageMap",
    "V2VError",
    "__version__",
    "checksum",
    "convert",
    "copy_image",
    "discard",
    "inspect",
    "limit_bandwidth",
    "list_guests",
    "list_jobs",
    "open_disks",
    "resume",
    "undo",
]

if TYPE_CHECKING:
    from v2v.api import (
        JobSummary,
        Result,
        convert,
        discard,
        inspect,
        limit_bandwidth,
        list_guests,
        list_jobs,
        open_disks,
        resume,
        undo,
    )
    from v2v.cancel import Cancel
    from v2v.converter import Inspection
    from v2v.errors import V2VError
    from v2v.events import Event
    from v2v.image_copy import CopiedImage, checksum, copy_image
    from v2v.job import ConversionOptions, CopyOptions, NicMap, StorageMap
    from v2v.opening import OpenedDisk, OpenedGuest
    from v2v.types import GuestSummary, SourceChange


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'v2v' has no attribute {name!r}")
