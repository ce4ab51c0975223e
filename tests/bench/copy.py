"""v2v's copy engine and its peers on the same work: wall time, CPU time and memory, as ratios.

    make bench-copy
    python -m tests.bench.copy --size 64 dense checkerboard      # some rows, small

How the comparison is kept fair:

- Every side reads from the same NBD server, started before the clock runs. The clock of a peer runs
  from the start of its process to its end; v2v's runs from the call of the engine to its result, as
  v2v's process runs already when a copy begins. (A Python that imports the engine takes 0.2 s.)
- Every side makes the target durable: nbdcopy is given --flush, qemu-img `-t writeback` (without it
  nothing is ever flushed), cp is followed by `sync TARGET`. v2v flushes always.
- Every side is told that the target is new and reads as zeroes.
- Rounds take turns (ABAB, then BABA), so that a machine that grows slower does so for all; the
  median counts. Each round gets memory that this machine has already (see `ballast`).
- In the first round, what arrived is compared with the source.
- CPU seconds and peak memory are those of the copier's process alone. Servers are not counted: they
  do the same work for all.
- The ratio is v2v's seconds divided by the peer's: below 1, v2v is faster.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench import servers
from tests.bench.ballast import Ballast
from tests.bench.costs import Cost, interleaved
from tests.bench.rows import ROWS
from tests.bench.sides import Bench
from v2v.types import MiB


def run_row(name: str, bench: Bench, only: str) -> dict[str, Cost] | None:
    """The medians of one row, printed; None where this machine cannot do it."""
    row = ROWS[name]
    try:
        with row(bench) as sides:
            chosen = [side for side in sides if side.name.startswith(only)]
            if not chosen:
                return None
            costs = interleaved(chosen, bench.rounds)
    except servers.ImpossibleError as exc:
        print(f"\n{name}: {exc}")
        return None
    print("\n" + table(name, (row.__doc__ or "").partition("\n")[0], costs), flush=True)
    return costs


def table(name: str, about: str, costs: Mapping[str, Cost]) -> str:
    ours = next(iter(costs.values()))
    lines = [f"{name}: {about}", f"{'':24} {'seconds':>8} {'ratio':>6} {'CPU s':>7} {'MiB':>6}"]
    for side, cost in costs.items():
        ratio = f"{ours.seconds / cost.seconds:6.2f}" if cost is not ours else " " * 6
        numbers = f"{cost.seconds:8.2f} {ratio} {cost.cpu:7.2f} {cost.peak / MiB:6.0f}"
        lines.append(f"{side:24} {numbers}")
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    memory = Path("/dev/shm")
    parser = argparse.ArgumentParser(description="Compare v2v's copy engine with its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default all")
    parser.add_argument(
        "--size", type=int, default=4096, help="of the largest disk that is written, in MiB"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=memory, help="scratch space: twice the size")
    parser.add_argument("--disk-dir", type=Path, default=Path("/var/tmp"), help="of local-disk")
    parser.add_argument("--side", default="", help="only those that begin so, as in: v2v")
    parser.add_argument("--no-check", action="store_true", help="do not compare what arrived")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--verbose", action="store_true", help="every round's figures")
    found = parser.parse_args(argv)
    if unknown := [row for row in found.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    asked = arguments(argv)
    logging.basicConfig(level=logging.DEBUG if asked.verbose else logging.WARNING)
    size = asked.size * MiB
    results = {}
    with (
        tempfile.TemporaryDirectory(prefix="v2v-bench-", dir=asked.dir) as folder,
        tempfile.TemporaryDirectory(prefix="v2v-bench-", dir=asked.disk_dir) as slow,
    ):
        memory = Ballast(Path(folder))
        bench = Bench(
            Path(folder), Path(slow), size, asked.rounds, check=not asked.no_check, ballast=memory
        )
        print(f"{asked.size} MiB, {os.cpu_count()} CPUs, medians of {asked.rounds} rounds")
        for name in asked.rows or ROWS:
            if (costs := run_row(name, bench, asked.side)) is not None:
                results[name] = {side: asdict(cost) for side, cost in costs.items()}
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
