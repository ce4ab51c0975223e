"""-o vdsm: volumes of a data domain that VDSM has made room for; for programs that run v2v."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from v2v.errors import TargetError, UsageError
from v2v.options import REPEATED, option
from v2v.outputs._images import Shape
from v2v.outputs._ovirt.domain_output import DomainOptions, DomainOutput
from v2v.outputs._ovirt.export_domain import UUID
from v2v.outputs._ovirt.layout import Layout, of_files
from v2v.outputs._ovirt.ovf import Flavour
from v2v.run import Run
from v2v.texts import clean
from v2v.types import Source

OVF_FOLDER = "vdsm-ovf-output"  # journal: where the OVF goes; a job may go on elsewhere


class Compat(StrEnum):
    """Versions of qcow2."""

    OLD = "0.10"  # QEMU before 1.1, such as that of RHEL 6
    NEW = "1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class VdsmOptions(DomainOptions):
    storage: Path = option(
        "-os", "the data domain: /rhev/data-center/POOL/DOMAIN", metavar="FOLDER"
    )
    images: REPEATED = option(
        "-oo vdsm-image-uuid", "UUID of a disk's image, for each disk", metavar="UUID"
    )
    volumes: REPEATED = option(
        "-oo vdsm-vol-uuid", "UUID of a disk's volume, for each disk", metavar="UUID"
    )
    vm: str = option("-oo vdsm-vm-uuid", "UUID of the VM", metavar="UUID")
    ovf_folder: Path | None = option(
        "-oo vdsm-ovf-output", "folder for the OVF (default: .)", default=None, metavar="FOLDER"
    )
    flavour: Flavour = option("-oo vdsm-ovf-flavour", "kind of the OVF", default=Flavour.OVIRTEXP)
    compat: Compat = option("-oo vdsm-compat", "version of qcow2", default=Compat.OLD)
    force: bool = option("--force", "replace the volumes that are there", default=False)


class VdsmOutput(DomainOutput):
    """images/IMAGE/{VOLUME,VOLUME.meta} of given UUIDs, in folders that VDSM made; and VM.ovf."""

    mode = "vdsm"
    summary = "volumes that VDSM made, for programs of oVirt that run v2v"
    Options = VdsmOptions

    options: VdsmOptions

    @property
    def shown(self) -> str:
        return str(self.options.storage)

    @property
    def force(self) -> bool:
        return self.options.force

    @property
    def flavour(self) -> Flavour:
        return self.options.flavour

    @property
    def shape(self) -> Shape:
        return replace(super().shape, compat=self.options.compat)

    def check_options(self, source: Source) -> None:
        options = self.options
        for key, given in (("image", options.images), ("vol", options.volumes)):
            _check_count(f"-oo vdsm-{key}-uuid", given, source)
        for word in (*options.images, *options.volumes, options.vm, options.storage.name):
            _check_uuid(word)

    @contextmanager
    def layout(self, count: int, run: Run) -> Iterator[Layout]:
        options = self.options
        disks = list(zip(options.images, options.volumes, strict=True))
        root = options.storage
        if not (root / "images").is_dir():
            raise TargetError(
                f"-os {root}: there is no storage domain",
                id="target-folder",
                hint="is it mounted?",
            )
        yield of_files(root, root.name, options.vm, disks, self._ovf_folder(run), run.job_id)

    def _ovf_folder(self, run: Run) -> Path:
        if self.options.ovf_folder is not None:
            return self.options.ovf_folder
        if OVF_FOLDER not in run.journal:
            run.journal.put(OVF_FOLDER, str(Path.cwd()))
        return Path(run.journal.get(OVF_FOLDER, str))


def _check_count(flag: str, given: Sequence[str], source: Source) -> None:
    """One for each disk: two volumes of an image would be states of the same disk."""
    if len(given) != len(source.disks):
        raise UsageError(
            f"{flag}: {len(given)} are given, and {clean(source.name)} has "
            f"{len(source.disks)} disks",
            id="vdsm-uuid-count",
            hint="give one for each disk, in their order",
        )
    if len(set(given)) < len(given):
        raise UsageError(
            f"{flag}: the same for two disks",
            id="vdsm-uuid-count",
            hint="each disk needs its own",
        )


def _check_uuid(text: str) -> None:
    if not UUID.fullmatch(text):
        raise UsageError(
            f"-o vdsm: {clean(text)!r} is no UUID",
            id="vdsm-uuid",
            hint="such as 12345678-1234-1234-1234-123456789abc, in lower case; -os ends with the "
            "domain's, and -oo vdsm-image-uuid, vdsm-vol-uuid and vdsm-vm-uuid take others",
        )
