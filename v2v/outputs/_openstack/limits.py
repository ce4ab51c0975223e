"""What the project must have in Cinder before volumes are made: their types, and room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import is_missing
from v2v.outputs._openstack.properties import gibibytes
from v2v.outputs._openstack.volume import Volume
from v2v.run import Run


def check_type(name: str, cloud: Cloud, run: Run) -> None:
    try:
        cloud.ask(
            f"Cinder: volume type {name}",
            lambda c: c.block_storage.find_type(name, ignore_missing=False),
            run,
        )
    except TargetError as exc:
        if not is_missing(exc):
            raise
        raise TargetError(
            f"Cinder has no volume type {name}",
            id="target-storage",
            hint="`openstack volume type list` shows them; choose with -os, or leave -os out",
        ) from exc


def check_quota(sizes: Sequence[int], own: Sequence[Volume], cloud: Cloud, run: Run) -> None:
    """Refuse volumes for disks of `sizes` bytes (0: not known) that the quotas do not leave room
    for. `own` are those that the job has already: they are used, or replaced."""
    limits = cloud.ask("Cinder: limits", lambda c: c.block_storage.get_limits().absolute, run)
    _check("volumes", limits.max_total_volumes, limits.total_volumes_used, len(own), len(sizes))
    _check(
        "gigabytes",
        limits.max_total_volume_gigabytes,
        limits.total_gigabytes_used,
        sum(one.gib for one in own),
        sum(gibibytes(size) for size in sizes),
    )


def _check(what: str, most: Any, used: Any, own: int, wanted: int) -> None:
    if not isinstance(most, int) or most < 0:  # -1: there is none
        return
    left = most - int(used or 0) + own
    if wanted > left:
        raise TargetError(
            f"Cinder: the disks need {wanted} {what}, the project's quota leaves {max(left, 0)}",
            id="target-quota",
            hint="raise the project's quota, delete what is not needed, or use another project",
        )
