"""A whole migration from a slow source, with and without copying while the guest is converted.

    make bench-copy-overlap
    python -m tests.bench.overlap --rate 50M

The demo guest behind an NBD server that gives 100 MB/s, `v2v convert -o local` with and without
--no-overlap, in turns. Whole processes, appliance and all. The ratio is with / without: the less,
the more of the copy was done while the conversion ran.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fixtures
from tests.bench import servers
from tests.bench.copy import table
from tests.bench.costs import Cost, Side, interleaved, measure
from tests.bench.sides import READ_ONLY, uri

V2V = str(Path(sys.executable).with_name("v2v"))
GUEST = "debian-12"


def convert(folder: Path, socket: Path, *options: str) -> Cost:
    with tempfile.TemporaryDirectory(dir=folder) as target:
        job = [V2V, "convert", "--jobs-dir", str(folder / "jobs"), *options]
        return measure(
            [*job, "-i", "disk", uri(socket), "-o", "local", "-on", "guest", "-os", target]
        )


def bits(rate: str) -> str:
    """nbdkit counts bits: 100M bytes per second are 800M."""
    number, unit = re.fullmatch(r"(\d+)([KMG]?)", rate).groups()  # type: ignore[union-attr]
    return f"{int(number) * 8}{unit}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the overlap of copy and conversion.")
    parser.add_argument("--rate", default="100M", help="bytes per second of the source")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="v2v-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        image = fixtures.guest(GUEST)
        slow = ["--filter=rate", "file", str(image), f"rate={bits(asked.rate)}", "burstiness=0.25"]
        with servers.nbdkit(folder, *READ_ONLY, *slow) as socket:
            sides = [
                Side("overlap", lambda: convert(folder, socket)),
                Side("--no-overlap", lambda: convert(folder, socket, "--no-overlap")),
            ]
            costs = interleaved(sides, asked.rounds)
    print(table("overlap", f"{GUEST} from a source of {asked.rate} bytes/s", costs))


if __name__ == "__main__":
    main()
