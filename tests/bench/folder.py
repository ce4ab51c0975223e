"""HTTPS /folder: our reader against nbdkit's curl plugin, the same file in the same run.

    .venv/bin/python -m tests.bench.folder

A dense flat disk behind the tests' own front (tests/fakes/vsphere), in a process of its own and
without the simulator, whose Go serves a quarter of that; at round trips of 0 and 10 ms, which
tests/fakes/tcp_proxy.py makes. Everything that is read is thrown away. "store" is our reader alone,
in threads; "served" is the way a migration goes: our reader in nbdkit's process, read by nbdcopy.
Each side reads the whole disk; the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.fakes.tcp_proxy import tcp_proxy
from tests.fakes.vsphere.certificates import certificate
from tests.fakes.vsphere.folder import Folder
from tests.fakes.vsphere.proxy import serve_front
from tests.vcsim import DESCRIPTOR
from v2v.cancel import Cancel
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.inputs._vsphere.folder import open_folder
from v2v.inputs._vsphere.place import VspherePlace
from v2v.run import Run
from v2v.types import KiB, MiB

USER, PASSWORD = "root", "secret"
FLAT = "/vmfs/volumes/datastore1/VM/VM-flat.vmdk"
Sides = dict[str, Callable[[], None]]


def write_disk(folder: Path, size: int) -> None:
    place = folder / "datastore1" / "VM"
    place.mkdir(parents=True)
    (place / "VM.vmdk").write_text(DESCRIPTOR.format(sectors=size // 512, flat="VM-flat.vmdk"))
    with (place / "VM-flat.vmdk").open("wb") as file:
        for _ in range(0, size, MiB):
            file.write(os.urandom(MiB))


def serve(folder: Path) -> None:
    """What the process of the server does."""
    made = certificate(folder)
    files = Folder(USER, PASSWORD, {"ha-datacenter"}, {"datastore1": folder / "datastore1"})
    with serve_front(files, made.context) as front:
        print(front.server_port, flush=True)
        sys.stdin.read()


@contextmanager
def server(folder: Path) -> Iterator[int]:
    argv = [sys.executable, "-m", "tests.bench.folder", "--serve", str(folder)]
    with subprocess.Popen(
        argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def store(place: VspherePlace, connections: int, request: int) -> None:
    options = {"connections": connections, "request_size": request}
    with (
        open_folder(place, cancel=Cancel(), **options) as opened,  # type: ignore[arg-type]
        ThreadPoolExecutor(connections) as threads,
    ):
        file = opened.open(FLAT)

        def one(offset: int) -> None:
            length = min(request, file.size - offset)
            file.read_into(offset, memoryview(bytearray(length)))

        list(threads.map(one, range(0, file.size, request)))


def served(place: VspherePlace, folder: Path, *options: str) -> None:
    recipe = Recipe(FLAT.replace("-flat", ""), (), folder=place)
    with Run.create(folder / "jobs", "bench") as run, serve_recipe(recipe, run, "bench") as disk:
        size = f"--request-size={disk.request_size}"
        subprocess.run(["nbdcopy", size, *options, str(disk.uri), "null:"], check=True)


def curl(place: VspherePlace, *options: str) -> None:
    url = f"https://{place.server}:{place.port}/folder/VM/VM-flat.vmdk"
    argv = ["nbdkit", "--readonly", "-U", "-", "curl"]
    argv += [f"url={url}?dcPath=ha-datacenter&dsName=datastore1", f"user={USER}"]
    argv += [f"password=+{place.password_file}", f"cainfo={place.cafile}"]
    argv += ["--run", f"nbdcopy {' '.join(options)} $uri null:"]
    subprocess.run(argv, check=True)


def sides(place: VspherePlace, folder: Path) -> Sides:
    found: Sides = {
        "nbdkit curl, 1 connection": partial(curl, place, "--connections=1"),
        "nbdkit curl, 8 connections": partial(curl, place, "--connections=8"),
        "nbdkit curl, 1 connection, 4 MiB": partial(
            curl, place, "--connections=1", "--request-size=4194304"
        ),
        "nbdkit curl, 8 connections, 4 MiB": partial(
            curl, place, "--connections=8", "--request-size=4194304"
        ),
    }
    for connections in (1, 8):
        for request in (256 * KiB, 2 * MiB, 4 * MiB, 8 * MiB, 16 * MiB):
            name = f"store, {connections} connections, {request / MiB:g} MiB"
            found[name] = partial(store, place, connections, request)
    found["served"] = partial(served, place, folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512, help="of the disk")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--milliseconds", type=int, nargs="+", default=[0, 10])
    parser.add_argument("--only", nargs="+", default=[""], help="how names of sides begin")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        folder = Path(name)
        write_disk(folder, args.mib * MiB)
        with server(folder) as port:
            for milliseconds in args.milliseconds:
                bench(args, folder, port, milliseconds)


def bench(args: argparse.Namespace, folder: Path, port: int, milliseconds: int) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    place = VspherePlace(
        scheme="esx",
        server="127.0.0.1",
        port=port,
        user=USER,
        password_file=password,
        cafile=folder / "server-ca.pem",
    )
    with tcp_proxy(port, round_trip=milliseconds / 1000) as wire:
        if milliseconds:
            place = replace(place, port=wire.port)
        wanted = tuple(args.only)
        chosen = {k: v for k, v in sides(place, folder).items() if k.startswith(wanted)}
        best = dict.fromkeys(chosen, float("inf"))
        for _ in range(args.rounds):
            for name, once in chosen.items():
                start = time.monotonic()
                once()
                best[name] = min(best[name], time.monotonic() - start)
    peer = best.get("nbdkit curl, 1 connection")
    print(f"\nround trip {milliseconds} ms, {args.mib} MiB")
    for name, seconds in best.items():
        ratio = f"{peer / seconds:6.2f}x" if peer else ""
        print(f"  {name:36} {args.mib / seconds:7.0f} MiB/s {ratio}", flush=True)


if __name__ == "__main__":
    main()
