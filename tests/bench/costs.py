"""What one round of a benchmark took, and how rounds of several sides are put together."""

from __future__ import annotations

import logging
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

SAMPLE_MILLISECONDS = 50  # between two looks at a program's memory; it is a high-water mark


@dataclass(frozen=True)
class Cost:
    """Wall seconds, CPU seconds and peak memory of the copier alone: servers are not counted."""

    seconds: float
    cpu: float
    peak: int  # bytes

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        seconds = self.seconds + other.seconds
        return Cost(seconds, self.cpu + other.cpu, max(self.peak, other.peak))


@dataclass(frozen=True)
class Side:
    """One of those compared. `once` is a whole round: it makes its target and takes it away."""

    name: str
    once: Callable[[], Cost]


def measure(argv: Sequence[str | Path]) -> Cost:
    """Run a program; a failure ends the benchmark."""
    start = time.monotonic()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        peak = _watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))}: exit code {process.returncode}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak)


def _watch(pid: int) -> int:
    """Wait for the end of a program; its peak memory.

    wait4 would tell it too, but a child begins with the peak of the process that started it.
    """
    peak = 0
    poll = select.poll()
    fd = os.pidfd_open(pid)
    poll.register(fd, select.POLLIN)
    try:
        while not poll.poll(SAMPLE_MILLISECONDS):
            peak = max(peak, peak_memory(pid))
    finally:
        os.close(fd)
    return peak


def peak_memory(pid: int | str = "self") -> int:
    """The most memory a process ever had, in bytes; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def interleaved(sides: Sequence[Side], rounds: int) -> dict[str, Cost]:
    """The medians of several rounds: ABAB..., and the other way round every second time."""
    costs: dict[str, list[Cost]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            costs[side.name].append(cost := side.once())
            log.debug("%s: %s", side.name, cost)
    return {name: median(found) for name, found in costs.items()}


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        max(cost.peak for cost in costs),
    )
