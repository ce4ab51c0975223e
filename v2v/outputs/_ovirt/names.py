"""What a job's things are called at the engine. All of it follows from the job's id, so that
whatever happens, who knows the job finds them again, and nothing else."""

from __future__ import annotations

import uuid

from v2v.hardware import valid_uuid
from v2v.outputs._files import disk_suffix
from v2v.outputs._ovirt.chipset import MOST_DISKS
from v2v.outputs._ovirt.options import UploadOptions
from v2v.run import Run

SPACE = uuid.UUID("5c1e6b86-7c0c-4f5e-9d3d-0a4c1f1e9a52")  # of the UUIDs that v2v derives
NAME_CHARACTERS = 64  # older engines take no more
PUNCTUATION = "._-"


def vm_name(name: str) -> str:
    """What the engine takes: letters, digits and . _ - ; no wildcard of its searches."""
    kept = "".join(c if c.isalpha() or c in "0123456789" + PUNCTUATION else "_" for c in name)
    return kept[:NAME_CHARACTERS] or "vm"


def disk_name(name: str, index: int) -> str:
    return f"{vm_name(name)}-{disk_suffix(index)}"


def vm_uuid(run: Run) -> str:
    return str(uuid.uuid5(SPACE, f"{run.job_id}/vm"))


def disk_uuid(index: int, options: UploadOptions, run: Run) -> str:
    """The one that the user chose, or one of the job's own."""
    if index < len(options.disk_uuids):
        return valid_uuid(options.disk_uuids[index]) or ""
    return _own_uuid(index, run)


def is_own_uuid(disk: str, run: Run) -> bool:
    """Whether only this job can have chosen it; not so one that the user chose."""
    return disk in (_own_uuid(index, run) for index in range(MOST_DISKS))


def _own_uuid(index: int, run: Run) -> str:
    return str(uuid.uuid5(SPACE, f"{run.job_id}/disk/{index}"))


def marker(run: Run) -> str:
    """The description of a disk, by which a job knows its own that have a UUID the user chose."""
    return f"v2v job {run.job_id}"
