"""A guest whose disks are copied into the job's files, and not sent yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contract.output_suite import GUEST
from tests.proxmox_host import Host
from v2v.output import Output
from v2v.run import Run
from v2v.types import GuestRef, Source, TargetDisk


class Staged:
    def __init__(self, host: Host, source: Source, run: Run, contents: list[bytes]) -> None:
        self.host = host
        self.source = source
        self.run = run
        self.contents = contents

    def copied(self, **words: str) -> Output:
        """An output whose disks are copied."""
        output = self.host.output(**{"-of": "raw", **words})
        output.check_source(self.source, self.run)
        sizes = [len(content) for content in self.contents]
        disks = output.create_disks(self.source, sizes, self.run)
        for disk, content in zip(disks, self.contents, strict=True):
            Path(disk.working).write_bytes(content)
        self.run.journal.put("disks", disks)
        return output

    @property
    def disks(self) -> tuple[TargetDisk, ...]:
        return self.run.journal.get("disks", tuple[TargetDisk, ...])

    def finalize(self, output: Output) -> GuestRef:
        return output.finalize(self.source, GUEST, self.disks, self.run)

    def kept(self) -> bool:
        """Whether the copy is still there."""
        return [Path(disk.working).read_bytes() for disk in self.disks] == self.contents

    def kept_files(self) -> list[str]:
        return [disk.working for disk in self.disks if Path(disk.working).exists()]

    def check_arrived(self, ref: GuestRef) -> None:
        server = self.host.server
        for disk, content in zip(ref.disks, self.contents, strict=True):
            storage, _, path = disk.location.partition(":")
            assert (server.storages[storage].folder / "images" / path).read_bytes() == content
        self.check_clear()

    def check_clear(self) -> None:
        """Nothing but VMs is left at the server."""
        folder = self.host.server.folder
        assert not list(folder.glob("*/import/*"))
        assert not list(folder.glob("pveupload-*"))

    def texts(self, events: list[Any]) -> str:
        """All that the job has told and written."""
        files = [path for path in self.run.folder.rglob("*") if path.is_file()]
        written = [path.read_bytes().decode("latin-1") for path in files]
        return "\n".join([*written, *(repr(event) for event in events)])
