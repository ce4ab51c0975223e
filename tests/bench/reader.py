"""A flat VMDK of this host served by our own code in nbdkit, against nbdkit's file plugin.

    .venv/bin/python -m tests.bench.reader [--size MIB]

Both have the same file, in /dev/shm, and nbdcopy throws away what it reads; they take turns, and
the best of four counts. It shows what our code costs per request: there is no host behind.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from v2v import nbd_client, nbdkit
from v2v.endpoint import Endpoint
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.run import Run
from v2v.types import KiB, MiB

REQUESTS = (64 * KiB, 256 * KiB, MiB, 4 * MiB)
CONNECTIONS = (1, 4)
ROUNDS = 4
SMALL_READS = 2000
DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=1
parentCID=ffffffff
createType="vmfs"
RW {sectors} VMFS "flat"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    size = parser.parse_args().size * MiB
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "disk.vmdk").write_text(DESCRIPTOR.format(sectors=size // 512))
        with (folder / "flat").open("wb") as file:
            for _ in range(size // MiB):
                file.write(os.urandom(MiB))
        compare(folder, size)


def compare(folder: Path, size: int) -> None:
    recipe = Recipe(str(folder / "disk.vmdk"), ())
    with (
        Run.create(folder / "jobs", "bench") as run,
        serve_recipe(recipe, run, "ours") as ours,
        nbdkit.serve("file", [f"file={folder / 'flat'}"], run=run, name="file") as socket,
    ):
        theirs = nbd_client.describe(socket)
        print(f"one 512-byte read: {latency(ours):.0f} us, nbdkit file {latency(theirs):.0f} us")
        for request in REQUESTS:
            for connections in CONNECTIONS:
                best = [0.0, 0.0]
                for _ in range(ROUNDS):
                    for side, endpoint in enumerate((ours, theirs)):
                        speed = size / MiB / copied(endpoint, request, connections)
                        best[side] = max(best[side], speed)
                print(
                    f"{request // KiB:5} KiB, {connections} connections: {best[0]:5.0f} MiB/s, "
                    f"nbdkit file {best[1]:5.0f} MiB/s, ratio {best[0] / best[1]:.2f}",
                    flush=True,
                )


def copied(endpoint: Endpoint, request: int, connections: int) -> float:
    """Seconds."""
    options = [f"--request-size={request}", f"--connections={connections}"]
    began = time.monotonic()
    subprocess.run(["nbdcopy", *options, endpoint.uri, "null:"], check=True)
    return time.monotonic() - began


def latency(endpoint: Endpoint) -> float:
    """Microseconds of a small read, one after the other."""
    handle = nbd_client.connect(endpoint)
    began = time.monotonic()
    for number in range(SMALL_READS):
        handle.pread(512, number * 7919 * 4096 % (endpoint.size - 512))
    taken = time.monotonic() - began
    handle.shutdown()
    return taken / SMALL_READS * 1e6


if __name__ == "__main__":
    main()
