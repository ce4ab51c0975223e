"""-i libvirtxml: a VM from the file with its libvirt domain XML. Talks to no libvirt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import UsageError
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.checks import warn_of_repeated
from v2v.inputs._domain.sources import source_disk
from v2v.inputs._images import Access, serve_disks
from v2v.inputs._metadata_file import read_metadata_file
from v2v.inputs._xml import MAX_BYTES
from v2v.run import Run
from v2v.types import Source

NO_FILE = "give the file with the XML that virsh dumpxml printed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtXmlOptions:
    allow_backing: tuple[Path, ...] = common.allow_backing()
    password_file: Path | None = common.password_file("of disks that want a login")


class LibvirtXmlInput(Input):
    mode = "libvirtxml"
    summary = "a file with the XML of a libvirt domain"
    Options = LibvirtXmlOptions
    tools = ("nbdkit", "qemu-nbd")

    options: LibvirtXmlOptions

    def read_source(self, run: Run) -> Source:
        path = self._file()
        xml = read_metadata_file(path, MAX_BYTES, hint=NO_FILE)
        domain = read_domain(xml, str(path), run, mode=self.mode)
        disks = tuple(
            source_disk(disk, self._access(strict=index == 0), run, base=path.parent)
            for index, disk in enumerate(domain.disks)
        )
        warn_of_repeated(disks, run)
        return replace(domain.source, disks=disks)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return serve_disks(source.disks, self._access(), run)

    def _file(self) -> Path:
        word = self.only_guest()
        if "://" in word:
            raise UsageError(
                f"{word}: -i libvirtxml reads files of this host only",
                id="uri-scheme",
                hint="download it first",
            )
        return Path(word).expanduser().absolute()

    def _access(self, *, strict: bool = False) -> Access:
        return common.access(self.options, strict=strict)
