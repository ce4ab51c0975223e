"""v2v's copy engine in a process of its own, so that its CPU time and memory can be told.

    python -m tests.bench.copier '{"disks": [{"source": "/tmp/s", "target": "null"}]}'

`seconds` and `cpu` begin when the engine is imported, as it is in a v2v that runs already.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import nbd  # noqa: F401  imported before the clock starts

from tests.bench.costs import Cost, peak_memory
from tests.bench.orders import Disk, Order
from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.copy.engine import Shared, copy_disk
from v2v.copy.progress import Progress
from v2v.copy.sinks import FileSink, NbdSink, NullSink, Sink
from v2v.job import CopyOptions
from v2v.types import CopyResult


@contextmanager
def opened(disk: Disk, size: int) -> Iterator[Sink]:
    if disk.target == "null":
        yield NullSink(request_size=disk.request_size)
    elif disk.target.startswith("nbd:"):
        endpoint = nbd_client.describe(Path(disk.target.removeprefix("nbd:")), read_only=False)
        sink = NbdSink(endpoint, request_size=disk.request_size, is_zero=True)
        yield sink
        sink.close()
    else:
        fd = os.open(disk.target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, size)
            yield FileSink(fd, request_size=disk.request_size, is_zero=True)
        finally:
            os.close(fd)


def copy(number: int, disk: Disk, shared: Shared) -> CopyResult:
    endpoint = nbd_client.describe(Path(disk.source))
    if disk.file:
        endpoint = replace(endpoint, file=Path(disk.file))
    with opened(disk, endpoint.size) as sink:
        return copy_disk(number, endpoint, sink, shared)


def run(order: Order) -> list[CopyResult]:
    """All disks, at once or one after the other."""
    options = CopyOptions(**order.options)
    shared = Shared(options, cancel=Cancel(), progress=Progress(lambda standing: None))
    with ThreadPoolExecutor(len(order.disks) if order.at_once else 1) as pool:
        jobs = [pool.submit(copy, n, disk, shared) for n, disk in enumerate(order.disks)]
        return [job.result() for job in jobs]


def main() -> None:
    order = Order.load(sys.argv[1])
    started, cpu = time.monotonic(), time.process_time()
    results = run(order)
    cost = Cost(time.monotonic() - started, time.process_time() - cpu, peak_memory())
    print(json.dumps({"cost": asdict(cost), "results": [asdict(one) for one in results]}))


if __name__ == "__main__":
    main()
