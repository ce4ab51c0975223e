"""Who copies: v2v's engine and its peers, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import servers
from tests.bench.ballast import Ballast
from tests.bench.costs import Cost, Side, measure
from tests.bench.orders import Order

READ_ONLY = ("--readonly",)


@dataclass(frozen=True)
class Bench:
    folder: Path  # scratch space, a tmpfs where possible
    slow_folder: Path  # scratch space on a disk
    size: int  # of a dense disk, in bytes
    rounds: int
    check: bool  # compare what arrived with the source, in the first round
    ballast: Ballast

    def image(
        self, size: int, *, kind: str = "dense", folder: Path | None = None
    ) -> AbstractContextManager[Path]:
        return servers.image(folder or self.folder, size, ballast=self.ballast, kind=kind)

    def target(self, size: int, folder: Path | None = None) -> AbstractContextManager[Path]:
        """The name of a new file, and memory for so many bytes in it."""
        self.ballast.release(size)
        return servers.kept(servers.scratch(folder or self.folder, "target"), self.ballast)


def engine(order: Order) -> Cost:
    """v2v's engine, in a new process."""
    argv = [sys.executable, "-m", "tests.bench.copier", order.dump()]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"v2v's engine failed: exit code {done.returncode}")
    return Cost(**json.loads(done.stdout)["cost"])


class ToFile:
    """Rounds that copy a source to a new file, which the first round of each compares."""

    def __init__(self, bench: Bench, source: Path, folder: Path | None = None) -> None:
        self._bench = bench
        self._source = source
        self._folder = folder or bench.folder

    def side(self, name: str, copy: Callable[[Path], Cost]) -> Side:
        compared = not self._bench.check
        data = self._source.stat().st_blocks * 512

        def once() -> Cost:
            nonlocal compared
            with self._bench.target(data, self._folder) as target:
                cost = copy(target)
                if not compared:
                    same(self._source, target)
                    compared = True
            return cost

        return Side(name, once)


def same(source: Path, target: Path) -> None:
    if subprocess.run(["cmp", source, target], check=False).returncode != 0:
        sys.exit(f"{target} is not what {source} is")


def uri(socket: Path) -> str:
    return f"nbd+unix:///?socket={socket}"


def nbdcopy(socket: Path, target: str | Path, *options: str) -> Cost:
    return measure(["nbdcopy", "--flush", "--destination-is-zero", *options, uri(socket), target])


def qemu_img(socket: Path, target: Path, kind: str = "raw") -> Cost:
    how = ["-W", "-m", "8", "-t", "writeback", "-f", "raw", "-O", kind]
    return measure(["qemu-img", "convert", *how, uri(socket), target])


def to_file_plugin(bench: Bench, socket: Path, target: Path) -> Cost:
    """virt-v2v's shape: nbdcopy from one NBD server to another that writes the file."""
    size = bench.size
    with target.open("wb") as out:
        out.truncate(size)
    with servers.nbdkit(bench.folder, "file", target) as writer:
        return nbdcopy(socket, uri(writer))
