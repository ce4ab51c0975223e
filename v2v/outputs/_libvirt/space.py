"""Whether the disks fit: into their pools, and on this host what is kept until it is sent."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from v2v.errors import TargetError
from v2v.outputs._files import leftovers
from v2v.outputs._libvirt.facts import LOGICAL, Pool
from v2v.outputs._libvirt.volumes import Way, is_own, known_volumes
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Allocation


def check_pools(
    pools: Sequence[Pool],
    sizes: Sequence[int],
    used: Sequence[int],
    allocation: Allocation,
    run: Run,
) -> None:
    """`pools` has the pool of each disk."""
    needed: dict[str, int] = defaultdict(int)
    for pool, size, data in zip(pools, sizes, used, strict=False):
        whole = allocation is Allocation.PREALLOCATED or pool.type == LOGICAL
        needed[pool.name] += size if whole else data
    for pool in pools:
        free = pool.free + _own_bytes(pool, allocation, run)
        if needed[pool.name] > free:
            raise TargetError(
                f"-os {pool.name}: the disks need {size_text(needed[pool.name])}, "
                f"{size_text(free)} are free",
                id="target-space",
                hint="make room, or choose another pool with -os or --storage",
            )


def check_staging(needed: int, run: Run) -> None:
    free = shutil.disk_usage(run.folder).free + _blocks(leftovers(run.folder, run.job_id))
    if needed > free:
        raise TargetError(
            f"{run.folder}: the images need {size_text(needed)} until they are sent, "
            f"{size_text(free)} are free",
            id="staging-space",
            hint="make room, choose another place with --jobs-dir, or give -of raw",
        )


def _own_bytes(pool: Pool, allocation: Allocation, run: Run) -> int:
    """What this job has in the pool already, and will make anew."""
    own = [one for one in known_volumes(run) if one.pool == pool.name]
    folders = {Path(one.working).parent for one in own if one.way is Way.FILE}
    whole = [one for one in own if one.block or allocation is Allocation.PREALLOCATED]
    lengths = [pool.volumes[v.name] for v in whole if is_own(v, pool.volumes.get(v.name), run)]
    return sum(lengths) + sum(_blocks(leftovers(folder, run.job_id)) for folder in folders)


def _blocks(files: Sequence[Path]) -> int:
    """Bytes that they take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in files)
