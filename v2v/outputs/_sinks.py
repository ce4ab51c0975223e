"""The sinks of a job's disks in files, as its options ask."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from v2v import disk_sinks
from v2v.copy.sinks import FileSink, NbdSink
from v2v.disk_sinks import CLUSTER, RAW_REQUEST
from v2v.output import copy_options, data_size
from v2v.run import Run
from v2v.types import TargetDisk

__all__ = ["CLUSTER", "RAW_REQUEST", "qcow2_sink", "raw_sink"]


def raw_sink(
    disk: TargetDisk, index: int, run: Run, *, blank: bool, sparse: bool
) -> AbstractContextManager[FileSink]:
    """`blank`: the file is known to read as zeroes."""
    data = data_size(disk, index, run)
    drop_cache = disk_sinks.drops_cache(copy_options(run).page_cache, data)
    return disk_sinks.raw_sink(
        Path(disk.working), disk.size, blank=blank, sparse=sparse, drop_cache=drop_cache
    )


def qcow2_sink(
    disk: TargetDisk, index: int, run: Run, *, blank: bool, sparse: bool, compressed: bool
) -> AbstractContextManager[NbdSink]:
    """`blank`: the image is known to read as zeroes."""
    return disk_sinks.qcow2_sink(
        Path(disk.working),
        run,
        name=f"target-{index}",
        blank=blank,
        sparse=sparse,
        compressed=compressed,
        stall=copy_options(run).stall_timeout,
    )
