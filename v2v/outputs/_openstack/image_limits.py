"""What Glance must take before images are made: their format, their number and their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.errors import raise_refusal
from v2v.run import Run
from v2v.texts import clean_name, some
from v2v.types import MiB

QUOTA = "raise the project's quota, delete what is not needed, or use another project"


def check_format(format: str, cloud: Cloud, run: Run) -> None:
    """Its administrator may have left some out: on Ceph it is often raw alone."""
    schema = _told("Glance: its formats", "/schemas/image", cloud, run)
    try:
        enum = schema["properties"]["disk_format"]["enum"]
        known = [clean_name(one) for one in enum if isinstance(one, str)]
    except (LookupError, TypeError):
        return
    if format not in known:
        raise TargetError(
            f"Glance takes no {format} images here; it takes {some(known)}",
            id="target-format",
            hint="choose another with -of",
        )


def check_count(wanted: int, cloud: Cloud, run: Run) -> None:
    usage, limit = _quota("image_count_total", cloud, run)
    if limit >= 0 and usage + wanted > limit:
        raise TargetError(
            f"Glance: the disks need {wanted} images, the project's quota leaves "
            f"{max(limit - usage, 0)}",
            id="target-quota",
            hint=QUOTA,
        )


def check_room(used: Sequence[int], cloud: Cloud, run: Run) -> None:
    """`used` are the bytes of the images. Glance takes one, of any size, as long as the quota is
    not exceeded before it: so the last one does not count."""
    usage, limit = _quota("image_size_total", cloud, run)  # MiB
    before = sum(used[:-1]) // MiB
    if 0 <= limit < usage + before:
        raise TargetError(
            f"Glance: the images need {sum(used) // MiB} MiB, the project's quota leaves "
            f"{max(limit - usage, 0)}",
            id="target-quota",
            hint=QUOTA,
        )


def _quota(name: str, cloud: Cloud, run: Run) -> tuple[int, int]:
    """Usage and limit, which is -1 if there is none. Clouds before 2021 do not tell."""
    told = _told("Glance: quotas", "/info/usage", cloud, run)
    try:
        found = told["usage"][name]
        return int(found["usage"]), int(found["limit"])
    except (LookupError, TypeError, ValueError):
        return 0, -1


def _told(what: str, path: str, cloud: Cloud, run: Run) -> Any:
    """What is there; None if the cloud does not tell: then Glance itself refuses what it must."""

    def look(connection: Any) -> Any:
        answer = connection.image.get(path)
        raise_refusal(answer)
        return answer.json()

    try:
        return cloud.find(what, look, run)
    except TargetError as exc:
        if exc.id not in ("target-forbidden", "target-refused"):
            raise
        return None
