"""A VM of which there are the disks and nothing else: the modes disk, nbd and http are these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from v2v.address import NBD_SCHEMES, parse
from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._details import is_uri
from v2v.inputs._images import Access, read_disk, serve_disks
from v2v.inputs._serve.addresses import ISCSI
from v2v.options import option
from v2v.run import Run
from v2v.types import DiskFormat, Source

SUFFIXES = (".img", ".raw", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi", ".xz", ".gz", ".ova")
ENDINGS = (*SUFFIXES, "-sda", "-flat")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    format: DiskFormat | None = option(
        "-if", "format of the disks; without it their content tells", default=None
    )
    allow_backing: tuple[Path, ...] = common.allow_backing()
    password_file: Path | None = common.password_file("for the user in the address")
    known_hosts: Path | None = common.known_hosts("ssh://")
    identity: Path | None = common.identity("ssh://")


class PlainInput(Input):
    """The guests are the disks of one VM, in their order."""

    Options = ImageOptions
    tools: ClassVar[tuple[str, ...]] = ("nbdkit", "qemu-nbd")
    schemes: ClassVar[tuple[str, ...]] = ()  # of the addresses it takes; () takes paths as well

    options: ImageOptions

    def read_source(self, run: Run) -> Source:
        self._check_guests()
        disks = tuple(
            read_disk(word, self._access(strict=index == 0), run)
            for index, word in enumerate(self.guests)
        )
        return Source(name=guest_name(self.guests), input=self.mode, disks=disks)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return serve_disks(source.disks, self._access(), run)

    def _check_guests(self) -> None:
        for word in self.guests:
            scheme, _, rest = word.partition("://")
            if self.schemes and not (rest and scheme.lower() in self.schemes):
                raise UsageError(
                    f"-i {self.mode} {word}: not an address that begins with "
                    + ", ".join(f"{one}://" for one in self.schemes),
                    id="uri-scheme",
                    hint="-i disk takes disks wherever they are, files too",
                )

    def _access(self, *, strict: bool = False) -> Access:
        return common.access(self.options, strict=strict)


def guest_name(words: Sequence[str]) -> str:
    """The first file's name without what tells of its format; "unknown" when there is none."""
    word = words[0]
    if is_uri(word):
        address = parse(word)
        word = "" if address.scheme in (*NBD_SCHEMES, ISCSI) else address.path
    name = PurePosixPath(word).name
    while True:
        ending = next((e for e in ENDINGS if name.lower().endswith(e) and name != e), None)
        if ending is None:
            return name.strip() or "unknown"
        name = name[: -len(ending)]
