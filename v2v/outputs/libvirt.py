"""-o libvirt: a guest on a libvirt host, its disks volumes of storage pools."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.cancel import Cancel
from v2v.copy.sinks import Sink
from v2v.errors import UsageError
from v2v.hardware import target_hardware
from v2v.job import Job
from v2v.libvirt_connection import LibvirtHost
from v2v.options import option
from v2v.output import Output
from v2v.outputs._domain import domain_element, written
from v2v.outputs._files import safe_name
from v2v.outputs._images import Shape
from v2v.outputs._libvirt import domain, space
from v2v.outputs._libvirt.capabilities import Capabilities, read_capabilities
from v2v.outputs._libvirt.checks import check_machine, check_names, check_networks
from v2v.outputs._libvirt.connection import check_driver, host_of, is_local
from v2v.outputs._libvirt.disks import HANDED_OVER, Disks
from v2v.outputs._libvirt.facts import LOGICAL, Facts, Pool, look
from v2v.outputs._libvirt.fit import fit
from v2v.outputs._libvirt.volumes import Volume, Way, known_volumes, plan, pool_names, way_of
from v2v.outputs._sinks import RAW_REQUEST
from v2v.outputs._staged import StagedFormat
from v2v.outputs._xml import Element
from v2v.run import Run
from v2v.types import (
    Allocation,
    ConvertedGuest,
    DiskFormat,
    GuestRef,
    Source,
    TargetDisk,
)

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtOptions:
    uri: str | None = option(
        "-oc", "address of the libvirt, such as qemu:///system", default=None, metavar="URI"
    )
    pool: str = option("-os", "storage pool of the disks", default=DEFAULT_POOL, metavar="POOL")
    format: StagedFormat = option("-of", "format of the disks", default=StagedFormat.RAW)
    allocation: Allocation = option(
        "-oa", "whether free space inside the disks takes space", default=Allocation.SPARSE
    )
    compressed: bool = option("-oo compressed", "compress the disks (qcow2 only)", default=False)
    upload: bool = option(
        "-oo upload",
        "send the disks through libvirt, also to a pool that is a folder here",
        default=False,
    )
    password: Path | None = option(
        "-op", "file that holds the password for libvirt", default=None, metavar="FILE"
    )
    start: bool = option("--start", "start the guest once it is defined", default=False)


class LibvirtOutput(Output):
    mode = "libvirt"
    summary = "a domain of a libvirt host, here or elsewhere; its disks are volumes of pools"
    Options = LibvirtOptions
    tools = ("qemu-nbd", "qemu-img")
    request_size = RAW_REQUEST  # of local files; uploads have their own: see _libvirt/sink.py
    per_disk_storage = True

    options: LibvirtOptions

    @property
    def can_rewrite(self) -> bool:  # type: ignore[override]
        """As for files: compressed clusters are written once."""
        return not self.options.compressed

    @property
    def bootable(self) -> bool:  # type: ignore[override]
        """Only where the volumes are here, too."""
        here = self.options.uri is None or is_local(self.options.uri)
        return here and not self.options.upload

    @property
    def _host(self) -> LibvirtHost:
        return host_of(self.options.uri, self.options.password)

    @property
    def _shape(self) -> Shape:
        return Shape(self.options.allocation, compressed=self.options.compressed)

    def _disks(self, run: Run) -> Disks:
        return Disks(self._host, self._shape, run)

    # Checks --------------------------------------------------------------------------------------

    def check_source(self, source: Source, run: Run) -> None:
        self._check_options(run)
        if self.options.uri is not None:
            check_driver(self.options.uri)
        facts = self._look(source, run)
        self._check_boot(facts, run)
        for name, pool in facts.pools.items():
            if pool.type == LOGICAL and self.options.format is not StagedFormat.RAW:
                raise UsageError(
                    f"-os {name}: the disks of a pool of logical volumes are raw",
                    id="option-conflict",
                    hint="leave out -of, or choose another pool",
                )
        check_names(source, facts, self.options.pool, run)
        check_networks(source, facts, run, needed=self.options.start)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        source = run.journal.get("source", Source) if "source" in run.journal else None
        names = pool_names(source, self.options.pool) if source else []
        names += [self.options.pool] * (len(sizes) - len(names))
        facts = look(self._host, names, "", run)
        pools = [facts.pools[name] for name in names]
        space.check_pools(pools, sizes, used, self.options.allocation, run)
        ways = [self._way(pool, facts) for pool in pools]
        staged = [data for data, way in zip(used, ways, strict=False) if way is Way.STAGED]
        space.check_staging(sum(staged), run)

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        source = run.journal.get("source", Source) if "source" in run.journal else None
        check_machine(source, guest, self._capabilities(guest, run), self._host)

    # Disks ---------------------------------------------------------------------------------------

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        self.discard((), run)
        facts = self._look(source, run)
        check_names(source, facts, self.options.pool, run)
        volumes = plan(
            source,
            sizes,
            facts,
            self.options.pool,
            self._format,
            run,
            upload=self.options.upload,
        )
        try:
            self._disks(run).make(volumes)
        except BaseException:
            self.discard((), run)
            raise
        return tuple(volume.disk for volume in volumes)

    def connect(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> AbstractContextManager[Sequence[Sink]]:
        return self._disks(run).open(known_volumes(run))

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        name = safe_name(source.name)
        volumes = known_volumes(run)
        final = tuple(replace(one.disk, working=one.location) for one in volumes)
        if HANDED_OVER not in run.journal:
            self._disks(run).complete(volumes)
            root = self._description(source, guest, volumes, run)
            self._warn_of(domain.define(self._host, root, name, run), run)
            run.journal.put(HANDED_OVER, True)
            self._disks(run).discard()  # the images that were sent
        if self.options.start:
            domain.start(self._host, name, run)
        return GuestRef(
            name=name,
            disks=final,
            metadata=str(domain.domain_uuid(run)),
            start_hint=None if self.options.start else domain.start_command(self._host, name),
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """Also of a job that was cancelled: what is asked of libvirt then is not to be."""
        self._disks(run.part(cancel=Cancel())).discard()

    # Detail --------------------------------------------------------------------------------------

    @property
    def _format(self) -> DiskFormat:
        return DiskFormat(self.options.format)

    def _way(self, pool: Pool, facts: Facts) -> Way:
        return way_of(pool, facts, self._format, upload=self.options.upload)

    def _look(self, source: Source, run: Run) -> Facts:
        pools = pool_names(source, self.options.pool)
        return look(self._host, pools, safe_name(source.name), run)

    def _capabilities(self, guest: ConvertedGuest, run: Run) -> Capabilities:
        return read_capabilities(self._host, guest.caps.arch, guest.caps.machine, run)

    def _description(
        self, source: Source, guest: ConvertedGuest, volumes: Sequence[Volume], run: Run
    ) -> Element:
        """The domain, as the host can have it; a copy is in the job's folder."""
        host = self._capabilities(guest, run)
        hardware = replace(target_hardware(source, guest), name=safe_name(source.name))
        devices = {one.location for one in volumes if one.block}
        disks = [one.disk for one in volumes]
        root = domain_element(hardware, disks, domain.domain_uuid(run), devices=devices)
        self._warn_of(fit(root, host), run)
        if host.kind != "kvm":
            run.warn(
                f"-oc {self._host.shown} has no KVM that works: the guest will run slowly",
                id="target-no-kvm",
                hint="see `virt-host-validate qemu` there",
            )
        (run.folder / "domain.xml").write_bytes(written(root))
        return root

    def _warn_of(self, devices: Sequence[str], run: Run) -> None:
        for device in devices:
            run.warn(
                f"-oc {self._host.shown} has no {device}: the guest gets none",
                id="device-dropped",
                hint="once the host has it, `virsh edit` adds it",
            )

    def _check_options(self, run: Run) -> None:
        options = self.options
        if options.compressed and options.format is not StagedFormat.QCOW2:
            raise UsageError(
                "-oo compressed: only qcow2 can be compressed",
                id="option-conflict",
                hint="add -of qcow2",
            )
        if options.compressed and options.allocation is Allocation.PREALLOCATED:
            raise UsageError(
                "-oo compressed and -oa preallocated contradict each other",
                id="option-conflict",
                hint="leave one of them out",
            )
        if options.start and _boot_check(run):
            raise UsageError(
                "--boot-check and --start: the disks of a guest that runs cannot be looked at",
                id="option-conflict",
                hint="leave one of them out",
            )

    def _check_boot(self, facts: Facts, run: Run) -> None:
        """A pool of this host may still be one that only libvirt can write to."""
        for name, pool in facts.pools.items():
            if _boot_check(run) and self._way(pool, facts) in (Way.UPLOAD, Way.STAGED):
                raise UsageError(
                    f"-os {name}: --boot-check cannot read the disks of this pool",
                    id="boot-check-impossible",
                    hint="run v2v as root, or leave out --boot-check",
                )


def _boot_check(run: Run) -> bool:
    return "job" in run.journal and bool(run.journal.get("job", Job).boot_check)
