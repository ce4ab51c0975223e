"""Uploads to an ovirt-imageio daemon: v2v's engine and its peers, as ratios of the same run.

    make bench-imageio
    python -m tests.bench.imageio --mib 256 --rounds 1 raw        # a row, small

A real daemon over TLS, one new ticket per round, in front of a new target on a tmpfs: a raw or a
qcow2 image behind qemu-nbd, as oVirt's hosts have both for transfers whose format is raw; "far" is
the latter over a wire with a round trip of 20 ms, on which 64 MiB may be under way. The peers:

- upload: `ovirt_imageio.client.upload` with its defaults, which reads the image through a qemu-nbd
  of its own (that is a part of it: it cannot read from an NBD server).
- nbdcopy: virt-v2v's shape. From the same NBD server as v2v's engine, to an nbdkit with a Python
  plugin (tests/bench/put_plugin.py) that makes each request one PUT, on 4 connections.

All are told that the target reads as zeroes, and all flush it. Rounds take turns (ABAB, then BABA)
after one that does not count; the median counts. "CPU s" is of the uploading process and of what it
starts, "daemon" is the daemon's. In the first round, what arrived is compared with the source.

On a machine with other work, `chrt -r 5 python -m tests.bench.imageio` keeps that out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import servers
from tests.bench.ballast import Ballast
from tests.fakes.tcp_proxy import tcp_proxy
from tests.imageio import Daemon, imageio_daemon
from v2v.types import KiB, MiB

PLUGIN = Path(__file__).with_name("put_plugin.py")
PLUGIN_SIZES = (256 * KiB, 4 * MiB, 8 * MiB)
OUR_REQUESTS = (1 * MiB, 8 * MiB, 128 * MiB, 512 * MiB)
OUR_CONNECTIONS = (1, 2, 4, 8)
OUR_BUFFERS = (64 * KiB, 4 * MiB)
ROWS = ("qcow2", "raw", "far")
ROUND_TRIP = 0.02  # seconds, of "far"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    url: str  # of the ticket
    path: Path
    size: int


@dataclass(frozen=True)
class Side:
    name: str
    upload: Callable[[str], tuple[float, float]]  # to a ticket's URL; wall and CPU seconds


@dataclass(frozen=True)
class Round:
    seconds: float
    cpu: float
    daemon: float


class Bench:
    def __init__(self, folder: Path, daemon: Daemon, source: Path, socket: Path) -> None:
        self.folder = folder
        self.daemon = daemon
        self.source = source
        self.socket = socket
        self.size = source.stat().st_size
        self.ballast = Ballast(folder)

    @contextmanager
    def target(self, kind: str) -> Iterator[Target]:
        self.ballast.release(self.source.stat().st_blocks * 512)
        with servers.kept(servers.scratch(self.folder, "target"), self.ballast) as path:
            form = form_of(kind)
            make = ["qemu-img", "create", "-q", "-f", form, path, str(self.size)]
            subprocess.run(make, check=True)
            socket = servers.scratch(self.folder, "sock")
            argv = ["qemu-nbd", "--persistent", "--shared=10", f"--format={form}"]
            argv += ["--cache=writeback", "--discard=unmap", "--detect-zeroes=unmap"]
            with servers.listening([*argv, f"--socket={socket}", str(path)], socket):
                yield Target(f"nbd:unix:{socket}", path, self.size)

    @contextmanager
    def wire(self, kind: str) -> Iterator[int]:
        """The port to connect to."""
        if kind != "far":
            yield self.daemon.port
            return
        with tcp_proxy(self.daemon.port, round_trip=ROUND_TRIP) as wire:
            yield wire.port

    def once(self, side: Side, kind: str, *, compare: bool) -> Round:
        with self.target(kind) as target:
            ticket = self.daemon.add_ticket(target.url, self.size, inactivity_timeout=600)
            daemon = cpu_of(self.daemon.pid)
            with self.wire(kind) as port:
                seconds, cpu = side.upload(self.daemon.url(ticket, port=port))
            cost = Round(seconds, cpu, cpu_of(self.daemon.pid) - daemon)
            self.daemon.cancel_ticket(ticket)
            if compare:
                argv = ["qemu-img", "compare", "-U", "-f", "raw", "-F", form_of(kind)]
                subprocess.run(
                    [*argv, self.source, target.path], check=True, stdout=subprocess.DEVNULL
                )
        return cost

    def sides(self, *, variants: bool) -> list[Side]:
        peers = [Side("upload", self.peer)]
        peers += [
            Side(f"nbdcopy, {text(n)}", partial(self.plugin, request=n)) for n in PLUGIN_SIZES
        ]
        return [Side("v2v", self.ours), *(self._variants() if variants else ()), *peers]

    def _variants(self) -> Iterator[Side]:
        for count in OUR_REQUESTS:
            yield Side(f"v2v, {text(count)}", partial(self.ours, request=count))
        for count in OUR_CONNECTIONS:
            yield Side(f"v2v, {count} connections", partial(self.ours, connections=count))
        for count in OUR_BUFFERS:
            yield Side(f"v2v, buffers of {text(count)}", partial(self.ours, buffer=count))

    def ours(self, url: str, **options: int) -> tuple[float, float]:
        return self._process("ours", url=url, socket=str(self.socket), **options)

    def peer(self, url: str) -> tuple[float, float]:
        return self._process("peer", url=url, source=str(self.source))

    def _process(self, what: str, **order: Any) -> tuple[float, float]:
        order |= {"cafile": str(self.daemon.cafile), "size": self.size}
        argv = [sys.executable, "-m", "tests.bench.imageio", f"--{what}", json.dumps(order)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
        seconds, cpu = json.loads(done.stdout)
        return seconds, cpu

    def plugin(self, url: str, request: int) -> tuple[float, float]:
        cpu = cpu_seconds()
        given = [f"url={url}", f"cafile={self.daemon.cafile}", f"size={self.size}"]
        with servers.nbdkit(self.folder, "--threads=8", "python", PLUGIN, *given) as writer:
            argv = ["nbdcopy", "--flush", "--destination-is-zero", f"--request-size={request}"]
            uris = [f"nbd+unix:///?socket={socket}" for socket in (self.socket, writer)]
            began = time.monotonic()
            subprocess.run([*argv, *uris], check=True)
            seconds = time.monotonic() - began
        return seconds, cpu_seconds() - cpu


def form_of(kind: str) -> str:
    return "raw" if kind == "raw" else "qcow2"


def cpu_seconds() -> float:
    """Of this process and the programs that it started and that have ended."""
    return sum(os.times()[:4])


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def text(count: int) -> str:
    return f"{count // MiB} MiB" if count >= MiB else f"{count // KiB} KiB"


def upload_ours(order: dict[str, Any]) -> None:
    """What a job's copy does, from an NBD server."""
    import nbd  # noqa: F401
    import ovirt_imageio.client  # noqa: F401

    from v2v import nbd_client
    from v2v.cancel import Cancel
    from v2v.copy.engine import Shared, copy_disk
    from v2v.copy.progress import Progress
    from v2v.job import CopyOptions
    from v2v.outputs._ovirt import daemon, imageio
    from v2v.outputs._ovirt.places import Transfer

    daemon.BUFFER = order.get("buffer", daemon.BUFFER)
    imageio.CONNECTIONS = order.get("connections", imageio.CONNECTIONS)
    transfer = Transfer(url=order["url"], cafile=Path(order["cafile"]), size=order["size"])
    shared = Shared(
        CopyOptions(request_size=order.get("request"), connections=order.get("connections")),
        cancel=Cancel(),
        progress=Progress(lambda standing: None),
    )
    with (
        clock(),
        imageio.imageio_sink(transfer, is_zero=True, stall=60, cancel=shared.cancel) as sink,
    ):
        copy_disk(0, nbd_client.describe(Path(order["socket"])), sink, shared)


def upload_peer(order: dict[str, Any]) -> None:
    from ovirt_imageio import client

    with clock():
        client.upload(order["source"], order["url"], order["cafile"], disk_is_zero=True)


@contextmanager
def clock() -> Iterator[None]:
    """Print what the block takes, in a process that has imported all it needs, as v2v's has."""
    began, cpu = time.monotonic(), cpu_seconds()
    yield
    print(json.dumps([time.monotonic() - began, cpu_seconds() - cpu]))


def run_row(bench: Bench, kind: str, rounds: int, *, variants: bool) -> None:
    sides = bench.sides(variants=variants)
    bench.once(sides[0], kind, compare=False)  # the first one pays for memory that is new
    found: dict[str, list[Round]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side.name].append(bench.once(side, kind, compare=number == 0))
    print(f"\nto {kind}\n{'':26} seconds  ratio   CPU s  daemon")
    ours = statistics.median(one.seconds for one in found[sides[0].name])
    for name, costs in found.items():
        middle = {key: statistics.median(asdict(one)[key] for one in costs) for key in FIELDS}
        print(
            f"{name:26}{middle['seconds']:8.2f}{ours / middle['seconds']:7.2f}"
            f"{middle['cpu']:8.2f}{middle['daemon']:8.2f}",
            flush=True,
        )


FIELDS = ("seconds", "cpu", "daemon")


def main() -> None:
    options = argparse.ArgumentParser(description="Compare uploads to an imageio daemon.")
    options.add_argument("rows", nargs="*", metavar="ROW", help=f"of {ROWS}; default all")
    options.add_argument("--mib", type=int, default=1024, help="size of the disk, half of it data")
    options.add_argument("--image", type=Path, help="a raw image instead, as the demo guest's")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="scratch space")
    options.add_argument("--variants", action="store_true", help="v2v with other sizes, too")
    options.add_argument("--ours", help=argparse.SUPPRESS)
    options.add_argument("--peer", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.ours or asked.peer:
        order = json.loads(asked.ours or asked.peer)
        upload_ours(order) if asked.ours else upload_peer(order)
        return
    with (
        tempfile.TemporaryDirectory(prefix="v2v-bench-", dir=asked.dir) as name,
        imageio_daemon() as daemon,
        image(Path(name), asked) as source,
        servers.nbdkit(Path(name), "--readonly", "file", source) as socket,
    ):
        bench = Bench(Path(name), daemon, source, socket)
        print(f"{bench.size // MiB} MiB, {os.cpu_count()} CPUs, medians of {asked.rounds} rounds")
        for kind in asked.rows or ROWS:
            run_row(bench, kind, asked.rounds, variants=asked.variants)


@contextmanager
def image(folder: Path, asked: argparse.Namespace) -> Iterator[Path]:
    if asked.image:
        yield asked.image
        return
    with servers.image(folder, asked.mib * MiB, ballast=Ballast(folder), kind="half") as path:
        yield path


if __name__ == "__main__":
    main()
