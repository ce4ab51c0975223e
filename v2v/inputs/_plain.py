"""A VM of which there are the disks and nothing else: the modes disk, nbd and http are these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs._details import is_uri
from v2v.inputs._images import NBD_SCHEMES, Access, read_disk, serve_disks
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
    allow_backing: tuple[Path, ...] = option(
        "-io allow-backing",
        "files or folders elsewhere that the images may refer to, separated by colons",
        default=(),
        metavar="PATH[:PATH...]",
    )
    password_file: Path | None = option(
        "-ip", "file with the password for the user in the address", default=None
    )
    known_hosts: Path | None = option(
        "-io known-hosts",
        "file with the keys of the hosts that ssh:// may connect to; without it ~/.ssh/known_hosts",
        default=None,
    )
    identity: Path | None = option(
        "-io identity",
        "file with the key that ssh:// logs in with; without it those of the agent and of ~/.ssh",
        default=None,
    )


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
        return Access(
            format=self.options.format,
            allowed=self.options.allow_backing,
            password_file=self.options.password_file,
            strict=strict,
            known_hosts=self.options.known_hosts,
            identity=self.options.identity,
        )


def guest_name(words: Sequence[str]) -> str:
    """The first file's name without what tells of its format; "unknown" when there is none."""
    word = words[0]
    if is_uri(word):
        parts = urlsplit(word)
        word = "" if parts.scheme.lower() in (*NBD_SCHEMES, ISCSI) else unquote(parts.path)
    name = PurePosixPath(word).name
    while True:
        ending = next((e for e in ENDINGS if name.lower().endswith(e) and name != e), None)
        if ending is None:
            return name.strip() or "unknown"
        name = name[: -len(ending)]
