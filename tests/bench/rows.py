"""The rows of the copy benchmark: what is copied, from where, to where, and by whom.

A row is a context manager that gives its sides, v2v's first. See `tests.bench.copy` for how they
are kept fair.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tests.bench import servers
from tests.bench.costs import Cost, Side, measure
from tests.bench.orders import Disk, Order
from tests.bench.sides import (
    READ_ONLY,
    Bench,
    ToFile,
    engine,
    nbdcopy,
    qemu_img,
    to_file_plugin,
    uri,
)
from v2v.types import GiB, KiB, MiB

Sides: TypeAlias = list[Side]
Row: TypeAlias = Callable[[Bench], AbstractContextManager[Sides]]


@contextmanager
def _raw(bench: Bench, kind: str) -> Iterator[Sides]:
    with (
        bench.image(bench.size, kind=kind) as source,
        servers.nbdkit(bench.folder, *READ_ONLY, "file", source) as socket,
    ):
        to = ToFile(bench, source)
        yield [
            to.side("v2v", lambda target: engine(Order((Disk(str(socket), str(target)),)))),
            to.side("nbdcopy", lambda target: nbdcopy(socket, target)),
            to.side("nbdcopy, like virt-v2v", lambda t: to_file_plugin(bench, socket, t)),
            to.side("qemu-img -W -m 8", lambda target: qemu_img(socket, target)),
        ]


def dense(bench: Bench) -> AbstractContextManager[Sides]:
    """NBD to a raw file, all of it random data."""
    return _raw(bench, "dense")


def half(bench: Bench) -> AbstractContextManager[Sides]:
    """NBD to a raw file, half of it holes of 64 MiB."""
    return _raw(bench, "half")


def checkerboard(bench: Bench) -> AbstractContextManager[Sides]:
    """NBD to a raw file, data and holes take turns every 64 KiB."""
    return _raw(bench, "checkerboard")


@contextmanager
def _local(bench: Bench, folder: Path, size: int) -> Iterator[Sides]:
    with (
        bench.image(size, folder=folder) as source,
        servers.nbdkit(bench.folder, *READ_ONLY, "file", source) as socket,
    ):
        to = ToFile(bench, source, folder)

        def ours(target: Path) -> Cost:
            return engine(Order((Disk(str(socket), str(target), file=str(source)),)))

        def theirs(target: Path) -> Cost:
            return measure(["cp", "--reflink=auto", source, target]) + measure(["sync", target])

        yield [to.side("v2v", ours), to.side("cp --reflink=auto", theirs)]


def local_tmpfs(bench: Bench) -> AbstractContextManager[Sides]:
    """File to file on one filesystem: the fast scratch folder's."""
    return _local(bench, bench.folder, bench.size)


def local_disk(bench: Bench) -> AbstractContextManager[Sides]:
    """File to file on one filesystem: a disk's, made durable by both."""
    return _local(bench, bench.slow_folder, bench.size // 4)


@contextmanager
def local_reflink(bench: Bench) -> Iterator[Sides]:
    """File to file on an XFS that shares blocks."""
    size = bench.size // 2
    with (
        servers.reflinking(bench.folder, 2 * size + GiB) as mount,
        _local(bench, mount, size) as sides,
    ):
        yield sides


@contextmanager
def _latency(bench: Bench, milliseconds: int) -> Iterator[Sides]:
    delay = ["--filter=delay", "file", f"rdelay={milliseconds}ms"]
    with (
        bench.image(bench.size // 4) as source,
        servers.nbdkit(bench.folder, *READ_ONLY, *delay, source) as socket,
    ):
        to = ToFile(bench, source)
        yield [
            to.side("v2v", lambda target: engine(Order((Disk(str(socket), str(target)),)))),
            to.side("nbdcopy", lambda target: nbdcopy(socket, target)),
            to.side("qemu-img -W -m 8", lambda target: qemu_img(socket, target)),
        ]


def latency_5ms(bench: Bench) -> AbstractContextManager[Sides]:
    """Each read takes 5 ms; the server works on 16 at a time for each connection."""
    return _latency(bench, 5)


def latency_20ms(bench: Bench) -> AbstractContextManager[Sides]:
    """Each read takes 20 ms; the server works on 16 at a time for each connection."""
    return _latency(bench, 20)


@contextmanager
def slow_target(bench: Bench) -> Iterator[Sides]:
    """Each write takes 20 ms, whatever its size; 16 at a time for each connection."""
    with (
        bench.image(bench.size // 2) as source,
        servers.nbdkit(bench.folder, *READ_ONLY, "file", source) as socket,
        servers.nbdkit(
            bench.folder, "--filter=delay", "null", f"size={bench.size // 2}", "wdelay=20ms"
        ) as target,
    ):

        def ours(request: int | None) -> Cost:
            return engine(Order((Disk(str(socket), f"nbd:{target}", request_size=request),)))

        def theirs(request: int) -> Cost:
            return nbdcopy(socket, uri(target), f"--request-size={request}")

        sizes = [256 * KiB, 4 * MiB, 8 * MiB]
        yield [
            Side("v2v", lambda: ours(None)),
            *(Side(f"v2v, {_size(n)}", partial(ours, n)) for n in (*sizes, 32 * MiB)),
            *(Side(f"nbdcopy, {_size(n)}", partial(theirs, n)) for n in sizes),
        ]


def _size(count: int) -> str:
    return f"{count // MiB} MiB" if count >= MiB else f"{count // KiB} KiB"


@contextmanager
def _four(bench: Bench, filters: Sequence[str], parameters: Sequence[str]) -> Iterator[Sides]:
    size = bench.size // 16
    with ExitStack() as stack:
        source = stack.enter_context(bench.image(size))
        sockets = [
            stack.enter_context(
                servers.nbdkit(bench.folder, *READ_ONLY, *filters, "file", source, *parameters)
            )
            for _ in range(4)
        ]

        def ours(*, at_once: bool) -> Cost:
            with ExitStack() as targets:
                files = [targets.enter_context(bench.target(size)) for _ in sockets]
                disks = (Disk(str(s), str(f)) for s, f in zip(sockets, files, strict=True))
                return engine(Order(tuple(disks), at_once=at_once))

        def theirs() -> Cost:
            cost = Cost(0, 0, 0)
            with ExitStack() as targets:
                for socket in sockets:
                    cost += nbdcopy(socket, targets.enter_context(bench.target(size)))
            return cost

        yield [
            Side("v2v, all at once", lambda: ours(at_once=True)),
            Side("v2v, one by one", lambda: ours(at_once=False)),
            Side("nbdcopy, one by one", theirs),
        ]


def parallel(bench: Bench) -> AbstractContextManager[Sides]:
    """Four disks, from servers as fast as they can be."""
    return _four(bench, (), ())


def parallel_limited(bench: Bench) -> AbstractContextManager[Sides]:
    """Four disks, from servers that give 200 MiB/s each."""
    return _four(bench, ("--filter=rate",), ("rate=1600M", "burstiness=0.25"))


@contextmanager
def _cost(bench: Bench, size: int) -> Iterator[Sides]:
    with servers.nbdkit(bench.folder, *READ_ONLY, "pattern", f"size={size}") as socket:
        yield [
            Side("v2v", lambda: engine(Order((Disk(str(socket), "null"),)))),
            Side("nbdcopy", lambda: measure(["nbdcopy", uri(socket), "null:"])),
        ]


def cost_quarter(bench: Bench) -> AbstractContextManager[Sides]:
    """A pattern to nowhere: a quarter of the size. CPU seconds and memory count."""
    return _cost(bench, bench.size // 4)


def cost_once(bench: Bench) -> AbstractContextManager[Sides]:
    """A pattern to nowhere: the size."""
    return _cost(bench, bench.size)


def cost_four(bench: Bench) -> AbstractContextManager[Sides]:
    """A pattern to nowhere: four times the size. Memory should be what it was."""
    return _cost(bench, 4 * bench.size)


@contextmanager
def qcow2(bench: Bench) -> Iterator[Sides]:
    """NBD to a qcow2 image, through qemu-nbd or by qemu-img itself."""
    size = bench.size // 2
    with (
        bench.image(size, kind="half") as source,
        servers.nbdkit(bench.folder, *READ_ONLY, "file", source) as socket,
    ):

        def through(copy: Callable[[Path], Cost]) -> Cost:
            with bench.target(size // 2) as target:
                make = ["qemu-img", "create", "-q", "-f", "qcow2", str(target), str(size)]
                subprocess.run(make, check=True)
                with servers.qemu_nbd(bench.folder, target) as writer:
                    return copy(writer)

        def by_qemu_img() -> Cost:
            with bench.target(size // 2) as target:
                return qemu_img(socket, target, "qcow2")

        yield [
            Side(
                "v2v, qemu-nbd",
                lambda: through(lambda w: engine(Order((Disk(str(socket), f"nbd:{w}"),)))),
            ),
            Side("nbdcopy, qemu-nbd", lambda: through(lambda w: nbdcopy(socket, uri(w)))),
            Side("qemu-img -W -m 8", by_qemu_img),
        ]


ROWS: dict[str, Row] = {
    "dense": dense,
    "half": half,
    "checkerboard": checkerboard,
    "local-tmpfs": local_tmpfs,
    "local-disk": local_disk,
    "local-reflink": local_reflink,
    "latency-5ms": latency_5ms,
    "latency-20ms": latency_20ms,
    "slow-target": slow_target,
    "parallel": parallel,
    "parallel-limited": parallel_limited,
    "cost-quarter": cost_quarter,
    "cost-once": cost_once,
    "cost-four": cost_four,
    "qcow2": qcow2,
}
