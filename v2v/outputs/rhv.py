"""-o rhv: an export storage domain of oVirt, from which its engine imports VMs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.options import option
from v2v.outputs._images import Shape
from v2v.outputs._ovirt import names
from v2v.outputs._ovirt.domain_output import DomainOptions, DomainOutput
from v2v.outputs._ovirt.export_domain import find_export_domain
from v2v.outputs._ovirt.layout import Layout, of_folders
from v2v.outputs._ovirt.limits import check_kind
from v2v.outputs._ovirt.mount import Storage
from v2v.run import Run
from v2v.types import Source

OLD_QCOW2 = "0.10"


@dataclass(frozen=True, slots=True, kw_only=True)
class RhvOptions(DomainOptions):
    storage: str = option(
        "-os", "the export domain: HOST:/PATH, or the folder where it is mounted", metavar="STORAGE"
    )


class RhvOutput(DomainOutput):
    """images/IMAGE/{VOLUME,VOLUME.meta} and master/vms/VM/VM.ovf, of new UUIDs."""

    mode = "rhv"
    aliases = ("ovirt", "rhev")
    summary = "an export storage domain of oVirt, to be imported from there"
    Options = RhvOptions

    options: RhvOptions

    def __init__(self, options: RhvOptions) -> None:
        super().__init__(options)
        self._storage = Storage(options.storage)

    @property
    def shown(self) -> str:
        return self.options.storage

    def show(self, path: Path) -> str:
        return self._storage.show(path)

    @property
    def shape(self) -> Shape:
        """VDSM makes such domains in versions below 4, whose images are of the older qcow2."""
        return replace(super().shape, compat=OLD_QCOW2)

    def check_options(self, source: Source) -> None:
        check_kind(self.options.format, self.options.allocation, mode=f"-o {self.mode}")
        self._storage.check()

    @contextmanager
    def layout(self, count: int, run: Run) -> Iterator[Layout]:
        with self._storage.open(run) as root:
            domain = find_export_domain(root, shown=self.shown)
            disks = [(_derived(run, "image", i), _derived(run, "volume", i)) for i in range(count)]
            yield of_folders(domain.root, domain.uuid, names.vm_uuid(run), disks, run.job_id)


def _derived(run: Run, what: str, index: int) -> str:
    """The job's own UUIDs: nobody else has them, and whoever knows the job finds them."""
    return str(uuid.uuid5(names.SPACE, f"{run.job_id}/{what}/{index}"))
