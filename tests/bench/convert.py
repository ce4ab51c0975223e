"""The demo guest through virt-v2v and through v2v: wall time and peak memory, as a ratio.

    make bench-convert

Whole processes, from their start to their end, each with everything it starts; v2v first, both with
the source in the page cache and libguestfs's appliance built. Without KVM virt-v2v takes half an
hour. --report FILE also writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import fixtures
from v2v.accel import accelerator

V2V = str(Path(sys.executable).with_name("v2v"))
GUEST = "debian-12"
SAMPLE_SECONDS = 0.5
PR_SET_CHILD_SUBREAPER = 36
MiB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_bytes: int  # highest sum of the memory of all its processes


def measure(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Cost:
    """Run a program; its output goes to `log`, and a failure ends the benchmark."""
    start = time.monotonic()
    peak = 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **env}, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
        while True:
            try:
                process.wait(SAMPLE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, memory_below(os.getpid()))
    seconds = time.monotonic() - start
    if process.returncode != 0:
        sys.exit(f"{' '.join(argv)}: exit code {process.returncode}\n{log.read_text()[-3000:]}")
    return Cost(seconds, peak)


def adopt_orphans() -> None:
    """Keep daemons of what we start among our descendants, so that they are counted."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def memory_below(root: int) -> int:
    """The memory of all descendants in bytes, pages shared among them counted once (PSS)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:  # the name may hold spaces and parentheses; the parent is the second word after it
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    below: set[int] = set()
    found = {root}
    while found := {pid for pid, parent in parents.items() if parent in found} - below:
        below |= found
    return sum(map(memory_of, below))


def memory_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def compare(folder: Path) -> dict[str, Cost]:
    guest = str(fixtures.guest(GUEST))
    warm_up(guest, folder)
    ours, theirs = folder / "v2v", folder / "virt-v2v"
    ours.mkdir()
    theirs.mkdir()
    job = ["convert", "--jobs-dir", str(folder / "jobs")]
    same = ["-i", "disk", guest, "-o", "local", "-on", "guest", "-os"]
    return {
        "v2v": measure([V2V, *job, *same, str(ours)], {}, folder / "v2v.log"),
        "virt-v2v": measure(
            ["virt-v2v", *same, str(theirs)], peer_environment(), folder / "virt-v2v.log"
        ),
    }


def warm_up(guest: str, folder: Path) -> None:
    argv = [V2V, "inspect", "--jobs-dir", str(folder / "jobs"), "-i", "disk", guest]
    measure(argv, {}, folder / "warm-up.log")
    with Path(guest).open("rb", buffering=0) as file:
        while file.read(16 * MiB):
            pass


def peer_environment() -> dict[str, str]:
    """virt-v2v does not find out by itself that KVM does not work."""
    tcg = accelerator() == "tcg"
    return {
        "LIBGUESTFS_BACKEND": "direct",
        **({"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} if tcg else {}),
    }


def table(costs: Mapping[str, Cost]) -> str:
    ours, theirs = costs["v2v"], costs["virt-v2v"]
    rows = [f"{GUEST}, {accelerator()}, {os.cpu_count()} CPUs", ""]
    rows += [f"{'':10} {'seconds':>9} {'peak MiB':>9}"]
    rows += [f"{n:10} {c.seconds:9.1f} {c.peak_bytes / MiB:9.0f}" for n, c in costs.items()]
    time_ratio, memory_ratio = ours.seconds / theirs.seconds, ours.peak_bytes / theirs.peak_bytes
    return "\n".join([*rows, f"{'ratio':10} {time_ratio:9.3f} {memory_ratio:9.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare v2v with virt-v2v.")
    parser.add_argument("--report", type=Path, help="write the figures here too, as JSON")
    report: Path | None = parser.parse_args().report
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="v2v-bench-", dir="/var/tmp") as folder:
        costs = compare(Path(folder))
    print(table(costs))
    if report:
        report.write_text(json.dumps({name: asdict(cost) for name, cost in costs.items()}))


if __name__ == "__main__":
    main()
