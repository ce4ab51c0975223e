"""Disks of a host over SSH: our readers against nbdkit's ssh plugin and `ssh dd`, in one run.

    make bench-ssh
    python -m tests.bench.ssh --mib 512 thick-10ms     # one row, smaller

A flat VMDK behind a real sshd, which tests/fakes/tcp_proxy.py puts 10 ms away or behind a wire of
100 Mbit/s. "thick" is a disk of which a quarter is random data and the rest are zeroes that are
written, so that no hole tells of them; "dense" is random data; "text" is what this machine's
libraries consist of, which can be compressed.

All that is read is thrown away. "v2v, READER" is a reader alone, in threads of this process; "v2v,
served" is the way that a migration goes: the reader in nbdkit's process, read by nbdcopy, with
logging in, which takes a second. Who is slow reads less of the disk (MiB): rates are compared, in
bytes of the disk. The best of the rounds counts. A ratio above 1: that side is so much faster.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fakes.tcp_proxy import NO_LIMIT, tcp_proxy
from tests.sshd import Sshd, sshd
from v2v.cancel import Cancel
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.inputs._ssh.choose import open_store
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.run import Run
from v2v.types import MiB

DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="vmfs"
RW {sectors} VMFS "{flat}"
ddb.adapterType = "lsilogic"
"""
RUN = 16 * MiB  # of data, and three times as much of zeroes, on the thick disk
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
WIRE = 12_500_000  # bytes/s
CIPHER = "aes128-gcm@openssh.com"


@dataclass(frozen=True)
class Way:
    """To the host, and its disk."""

    place: SshPlace
    folder: Path  # of the disk
    kind: str
    size: int  # bytes
    jobs: Path

    @property
    def flat(self) -> Path:
        return self.folder / f"{self.kind}-flat.vmdk"


@dataclass(frozen=True)
class Side:
    name: str
    size: int  # bytes of the disk that are read
    read: Callable[[int], None]

    def rate(self) -> float:
        start = time.monotonic()
        self.read(self.size)
        return self.size / (time.monotonic() - start)


def write_disk(folder: Path, kind: str, size: int) -> None:
    (folder / f"{kind}.vmdk").write_text(
        DESCRIPTOR.format(sectors=size // 512, flat=f"{kind}-flat.vmdk")
    )
    blocks = {"thick": _thick, "dense": _dense, "text": _text}[kind]()
    with (folder / f"{kind}-flat.vmdk").open("wb") as file:
        while file.tell() < size:
            file.write(next(blocks)[: size - file.tell()])


def _dense() -> Iterator[bytes]:
    while True:
        yield os.urandom(RUN)


def _thick() -> Iterator[bytes]:
    for data in _dense():
        yield from (data, bytes(3 * RUN))


def _text() -> Iterator[bytes]:
    files = sorted(path for path in Path(LIBRARIES).glob("*.so*") if path.is_file())
    while True:
        for path in random.Random(1).sample(files, len(files)):
            yield path.read_bytes()


def nbdkit_ssh(way: Way, size: int, *, request: int | None = None) -> None:
    place = way.place
    argv = ["nbdkit", "--readonly", "-U", "-", "--filter=truncate", "ssh", f"path={way.flat}"]
    argv += [f"host={place.host}", f"port={place.port}", f"user={place.user}"]
    argv += [f"known-hosts={place.known_hosts}", f"identity={place.identity}", f"truncate={size}"]
    option = f"--request-size={request}" if request else ""
    subprocess.run([*argv, "--run", f'nbdcopy {option} "$uri" null:'], check=True)


def ssh_dd(way: Way, size: int, *options: str) -> None:
    place = way.place
    argv = ["ssh", "-T", "-F", "none", "-p", str(place.port), "-i", str(place.identity)]
    argv += ["-o", f"UserKnownHostsFile={place.known_hosts}", "-o", "BatchMode=yes", *options]
    command = f"dd if={way.flat} bs=1M count={size // MiB} status=none"
    with Path(os.devnull).open("wb") as nowhere:
        host = f"{place.user}@{place.host}"
        subprocess.run([*argv, host, command], stdout=nowhere, check=True)


def store(way: Way, size: int, *, reader: SshReader) -> None:
    place = SshPlace(**{**_fields(way.place), "reader": reader})
    with (
        open_store(place, cancel=Cancel(), tell=lambda text: None) as opened,
        ThreadPoolExecutor(opened.parallel) as threads,
    ):
        file, request = opened.open(str(way.flat)), opened.request_size

        def one(offset: int) -> None:
            file.read_into(offset, memoryview(bytearray(min(request, size - offset))))

        list(threads.map(one, range(0, size, request)))


def served(way: Way, size: int) -> None:
    recipe = Recipe(str(way.folder / f"{way.kind}.vmdk"), (), ssh=way.place)
    with Run.create(way.jobs, "bench") as run, serve_recipe(recipe, run, "bench") as disk:
        request = f"--request-size={disk.request_size}"
        subprocess.run(["nbdcopy", request, str(disk.uri), "null:"], check=True)


def _fields(place: SshPlace) -> dict[str, object]:
    return {name: getattr(place, name) for name in SshPlace.__slots__}


def sides(way: Way, *, slow: int) -> list[Side]:
    """`slow`: bytes that those read who would take minutes for all of it."""
    size = way.size
    gcm = ("-o", f"Ciphers={CIPHER}")
    return [
        Side("nbdkit ssh", slow, partial(nbdkit_ssh, way)),
        Side("nbdkit ssh, 4 MiB", slow, partial(nbdkit_ssh, way, request=4 * MiB)),
        Side("ssh dd", min(size, 8 * slow), lambda count: ssh_dd(way, count)),
        Side(f"ssh dd, {CIPHER.partition('@')[0]}", size, lambda count: ssh_dd(way, count, *gcm)),
        Side("v2v, helper", size, partial(store, way, reader=SshReader.HELPER)),
        Side("v2v, sftp", min(size, 8 * slow), partial(store, way, reader=SshReader.SFTP)),
        Side("v2v, dd", min(size, 8 * slow), partial(store, way, reader=SshReader.DD)),
        Side("v2v, served", size, partial(served, way)),
    ]


@dataclass(frozen=True)
class Row:
    about: str
    kind: str
    share: float  # of the size that is asked for
    slow: int  # bytes; see `sides`
    round_trip: float = 0.0  # seconds
    rate: float = NO_LIMIT


ROWS = {
    "thick-0ms": Row("a quarter of it data, no delay", "thick", 1, 256 * MiB),
    "thick-10ms": Row("a quarter of it data, 10 ms away", "thick", 1, 96 * MiB, 0.01),
    "dense-0ms": Row("random data, no delay", "dense", 1 / 4, 256 * MiB),
    "dense-10ms": Row("random data, 10 ms away", "dense", 1 / 4, 96 * MiB, 0.01),
    "text-100M": Row("libraries, over 100 Mbit/s", "text", 1 / 16, 32 * MiB, 0.001, WIRE),
    "thick-100M": Row("a quarter data, 100 Mbit/s", "thick", 1 / 16, 32 * MiB, 0.001, WIRE),
}


@contextmanager
def way_to(row: Row, host: Sshd, folder: Path, size: int) -> Iterator[Way]:
    with ExitStack() as stack:
        port = host.port
        if row.round_trip or row.rate != NO_LIMIT:
            wire = tcp_proxy(port, round_trip=row.round_trip, rate=row.rate)
            port = stack.enter_context(wire).port
        known = folder / f"known-{port}"
        known.write_text(host.known_hosts.read_text().replace(f":{host.port} ", f":{port} "))
        place = SshPlace(
            host="127.0.0.1",
            port=port,
            user=host.user,
            known_hosts=known,
            identity=host.identity,
        )
        yield Way(place, folder, row.kind, size, folder / "jobs")


def run_row(name: str, host: Sshd, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """The best rate of each side, bytes/s; printed."""
    row = ROWS[name]
    size = int(asked.mib * row.share) * MiB
    write_disk(folder, row.kind, size)
    with way_to(row, host, folder, size) as way:
        chosen = [
            one for one in sides(way, slow=min(size, row.slow)) if one.name.startswith(asked.side)
        ]
        rates = dict.fromkeys((one.name for one in chosen), 0.0)
        for number in range(asked.rounds):
            for one in chosen if number % 2 == 0 else reversed(chosen):
                rates[one.name] = max(rates[one.name], one.rate())
        way.flat.unlink()
    print(f"\n{name}: {size // MiB} MiB, {row.about}", table(chosen, rates), sep="\n", flush=True)
    return rates


def table(chosen: Sequence[Side], rates: dict[str, float]) -> str:
    peers = [name for name in ("nbdkit ssh", "ssh dd") if name in rates]
    heads = "".join(f"{f'x {peer}':>13}" for peer in peers)
    lines = [f"{'':24} {'MiB':>6} {'MiB/s':>8}{heads}"]
    for one in chosen:
        ratios = "".join(f"{rates[one.name] / rates[peer]:13.2f}" for peer in peers)
        lines.append(f"{one.name:24} {one.size // MiB:6} {rates[one.name] / MiB:8.0f}{ratios}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare ways to read a disk over SSH.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default all")
    parser.add_argument("--mib", type=int, default=4096, help="of the thick disk; others are less")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where the disk is")
    parser.add_argument("--side", default="", help="only those that begin so, as in: v2v")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    asked = parser.parse_args(argv)
    if unknown := [row for row in asked.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    with (
        tempfile.TemporaryDirectory(prefix="v2v-bench-", dir=asked.dir) as name,
        sshd(Path(name) / "sshd") as host,
    ):
        found = {row: run_row(row, host, Path(name), asked) for row in asked.rows or ROWS}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
