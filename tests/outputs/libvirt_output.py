"""-o libvirt and small disks, for the tests of what it refuses and repairs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.contract.output_suite import GUEST, shared
from tests.libvirtd import Libvirtd
from v2v import nbd_client, nbdkit, options, registry
from v2v.copy.engine import copy_disk
from v2v.copy.ledger import Ledger
from v2v.output import Output, ledger_path
from v2v.run import Run
from v2v.types import DiskFormat, GuestRef, MiB, Nic, Source, SourceDisk, TargetDisk

UNDEFINE_NVRAM = 4  # VIR_DOMAIN_UNDEFINE_NVRAM


@dataclass(frozen=True)
class Place:
    """A libvirtd and an active pool of it."""

    server: Libvirtd
    pool: str
    folder: Path

    def output(self, **words: str) -> Output:
        return make({"-oc": self.server.uri, "-os": self.pool, **words})

    def domains(self) -> list[str]:
        with self.server.connected() as connection:
            return sorted(domain.name() for domain in connection.listAllDomains())


@contextmanager
def place(server: Libvirtd, folder: Path) -> Iterator[Place]:
    folder.mkdir(exist_ok=True)
    name = f"pool-{uuid4()}"
    with server.pool(name, folder):
        yield Place(server, name, folder)
        with server.connected() as connection:
            for domain in connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
                domain.undefineFlags(UNDEFINE_NVRAM)


@contextmanager
def hidden_firmware(server: Libvirtd, hides: Callable[[list[str]], bool]) -> Iterator[None]:
    """The daemon has no firmware whose features are such: an empty file hides the host's."""
    ours = server.folder / "config_home/qemu/firmware"
    ours.mkdir(parents=True)
    try:
        for path in Path("/usr/share/qemu/firmware").glob("*.json"):
            if hides(json.loads(path.read_text())["features"]):
                (ours / path.name).touch()
        assert list(ours.iterdir())
        yield
    finally:
        shutil.rmtree(ours)


def make(words: dict[str, str]) -> Output:
    cls = registry.find_output("libvirt")
    return cls(options.parse(cls.Options, words, module="-o libvirt"))


def make_source(folder: Path, *sizes: int, name: str = "demo", **more: Any) -> Source:
    disks = []
    for index, size in enumerate(sizes or (MiB,)):
        path = folder / f"source-{index}"
        path.write_bytes(os.urandom(size))
        disks.append(SourceDisk(str(path), DiskFormat.RAW, size))
    return Source(name=name, input="disk", disks=tuple(disks), **{"nics": (), **more})


def sizes_of(source: Source) -> list[int]:
    return [disk.size or 0 for disk in source.disks]


def create(output: Output, source: Source, run: Run) -> Sequence[TargetDisk]:
    output.check_source(source, run)
    disks = output.create_disks(source, sizes_of(source), run)
    run.journal.put("disks", disks)
    return disks


def copy(output: Output, source: Source, disks: Sequence[TargetDisk], run: Run) -> None:
    """As the coordinator does it, with what a killed job had copied."""
    with ExitStack() as stack:
        served = [
            stack.enter_context(nbdkit.serve("file", [one.location], run=run, name=f"s{index}"))
            for index, one in enumerate(source.disks)
        ]
        for index, sink in enumerate(stack.enter_context(output.connect(disks, run))):
            endpoint = nbd_client.describe(served[index])
            ledger = Ledger(ledger_path(run, index))
            result = copy_disk(index, endpoint, sink, shared(run.cancel), ledger=ledger)
            run.journal.put(f"copied:{index}", result)


def migrate(output: Output, source: Source, run: Run) -> GuestRef:
    disks = create(output, source, run)
    copy(output, source, disks, run)
    return output.finalize(source, GUEST, disks, run)


def missing_nic() -> Nic:
    return Nic(mac="52:54:00:12:34:56", network="nowhere")
