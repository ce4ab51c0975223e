"""The way into a cluster: volumes are made there first, images are sent to them, then the VM.

All that a job makes there has its label. The volumes have their final names from the beginning, for
Kubernetes renames nothing; the job owns them until the VM is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.cancel import Cancel
from v2v.errors import TargetError, UsageError
from v2v.hardware import Hardware, target_hardware
from v2v.outputs import _images
from v2v.outputs._folder import ImageFormat
from v2v.outputs._kubevirt import Object, checks, devices, manifest, volumes
from v2v.outputs._kubevirt.api import MACHINES, Cluster, open_cluster
from v2v.outputs._kubevirt.guessed import as_qcow2, guessed_format
from v2v.outputs._kubevirt.manifest import Wishes
from v2v.outputs._kubevirt.names import JOB_LABEL, SUBDOMAIN, disk_name, job_label, kube_name
from v2v.outputs._kubevirt.networks import attach
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.outputs._kubevirt.proxy import find_proxy
from v2v.outputs._kubevirt.upload import upload
from v2v.outputs._limits import check_disk_count, check_sectors
from v2v.outputs._staged import StagedFormat, StagedOptions, StagedOutput
from v2v.run import Run
from v2v.texts import clean_name
from v2v.types import Allocation, ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

MAX_DISKS = 256  # of KubeVirt's API

PLACE = "kubevirt-place"  # journal: where the job makes its volumes
HANDED_OVER = "kubevirt-vm"  # journal: the name of the VM, which owns the volumes now


@dataclass(frozen=True, slots=True)
class Place:
    server: str
    namespace: str


class ClusterWay(StagedOutput):
    mode = "kubevirt"
    per_disk_storage = True

    options: StagedOptions

    def __init__(self, options: KubevirtOptions) -> None:
        format = options.format or ImageFormat.QCOW2
        if options.compressed and format is not ImageFormat.QCOW2:
            raise UsageError(
                f"-oo compressed: the {format} format has no compression",
                id="option-conflict",
                hint="add -of qcow2",
            )
        super().__init__(StagedOptions(format=StagedFormat(format), staging=options.staging))
        self._asked = options
        self._shape = _images.Shape(compressed=options.compressed)

    @property
    def shape(self) -> _images.Shape:  # type: ignore[override]
        return self._shape

    @property
    def can_rewrite(self) -> bool:  # type: ignore[override]
        """As FolderOutput's."""
        return not self._shape.compressed

    def check_source(self, source: Source, run: Run) -> None:
        self.check_staging(run)
        check_disk_count(source, MAX_DISKS, mode=self.mode)
        cards = attach(source.nics or ())
        classes = [self._storage_class(source, index) for index in range(len(source.disks))]
        with self._cluster(run, cancel=run.cancel) as cluster:
            checks.check_installed(cluster)
            checks.check_rights(cluster)
            checks.check_storage(cluster, dict.fromkeys(classes))
            checks.check_networks(cluster, cards)
            checks.check_names(cluster, kube_name(source.name), self._volumes(source), run)
            find_proxy(self._asked, cluster).check(run)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        check_sectors(sizes, mode=self.mode)
        super().check_sizes(sizes, used, run)
        if PLACE not in run.journal:  # else what it has made counts among what is used
            with self._cluster(run, cancel=run.cancel) as cluster:
                checks.check_quota(cluster, sizes)

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        devices.check_guest(guest)
        if "source" in run.journal:
            hardware = target_hardware(run.journal.get("source", Source), guest)
            with self._cluster(run, cancel=run.cancel) as cluster:
                checks.check_machine(cluster, self._machine(cluster, hardware, run))

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        """The volumes are waited for: a class that gives none, or a pod that does not start, is
        told before anything is copied."""
        disks = super().create_disks(source, sizes, run)
        names = self._volumes(source)
        try:
            with self._cluster(run, cancel=run.cancel) as cluster:
                run.journal.put(PLACE, Place(cluster.server, cluster.namespace))
                for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
                    volumes.make(cluster, self._volume(source, index, name, size, run), run)
                for name in names:
                    volumes.wait_until_ready(cluster, name, run)
        except BaseException:
            self.discard(disks, run)
            raise
        return tuple(
            replace(disk, location=f"{cluster.namespace}/{name}")
            for disk, name in zip(disks, names, strict=True)
        )

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        name = kube_name(source.name)
        with self._cluster(run, cancel=run.cancel) as cluster:
            if HANDED_OVER not in run.journal:
                self._send(cluster, disks, run)
                self._make_machine(cluster, name, source, guest, run)
            where = cluster.namespace
        self.unstage(run)
        return GuestRef(
            name=name,
            disks=tuple(replace(disk, working=disk.location) for disk in disks),
            metadata=f"{where}/{name}",
            start_hint=None if self._asked.start else f"virtctl start -n {where} {name}",
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """Works for a cancelled job, too."""
        self.unstage(run)
        if PLACE not in run.journal or HANDED_OVER in run.journal:
            return
        with self._cluster(run, cancel=None) as cluster:
            label = f"{JOB_LABEL}={job_label(run.job_id)}"
            if not any(volumes.is_ours(vm, run) for vm in cluster.list(MACHINES, labels=label)):
                volumes.discard(cluster, run)

    @contextmanager
    def _cluster(self, run: Run, *, cancel: Cancel | None) -> Iterator[Cluster]:
        with open_cluster(self._asked, cancel) as cluster:
            here = Place(cluster.server, cluster.namespace)
            if PLACE in run.journal and (place := run.journal.get(PLACE, Place)) != here:
                raise UsageError(
                    f"this job made its volumes in {place.namespace} of {place.server}, and the "
                    f"kubeconfig names {clean_name(here.namespace)} of {clean_name(here.server)}",
                    id="kubevirt-elsewhere",
                    hint="give the kubeconfig the context that it had when the job began",
                )
            yield cluster

    def _send(self, cluster: Cluster, disks: Sequence[TargetDisk], run: Run) -> None:
        proxy = find_proxy(self._asked, cluster)
        for index, disk in enumerate(disks):
            volume = disk.location.rpartition("/")[2]
            _images.complete(disk, self.shape)
            with run.step(f"send-{index}", f"Sending disk {index + 1}"):
                image = Path(disk.working)
                if disk.format is DiskFormat.RAW and guessed_format(image):
                    image = as_qcow2(image, index, run)
                upload(cluster, proxy, image, volume, index, run)

    def _make_machine(
        self, cluster: Cluster, name: str, source: Source, guest: ConvertedGuest, run: Run
    ) -> None:
        hardware = target_hardware(source, guest)
        existing = cluster.get(MACHINES, name)
        if existing is not None and not volumes.is_ours(existing, run):
            raise volumes.taken("virtual machine", name, cluster)
        if existing is None:
            for one in manifest.differences(hardware, self._wishes(run)):
                run.warn(one.text, id=one.id, hint=one.hint)
            cluster.create(MACHINES, self._machine(cluster, hardware, run))
        run.journal.put(HANDED_OVER, name)

    def _machine(self, cluster: Cluster, hardware: Hardware, run: Run) -> Object:
        wishes = replace(self._wishes(run), namespace=cluster.namespace)
        return manifest.virtual_machine(hardware, wishes)

    def _volume(self, source: Source, index: int, name: str, size: int, run: Run) -> Object:
        chosen = self._storage_class(source, index)
        return manifest.data_volume(name, size, self._wishes(run), storage_class=chosen)

    def _wishes(self, run: Run) -> Wishes:
        return Wishes(
            start=self._asked.start,
            timezone=self._asked.timezone,
            preallocated=self._asked.allocation is Allocation.PREALLOCATED,
            labels={JOB_LABEL: job_label(run.job_id)},
        )

    def _storage_class(self, source: Source, index: int) -> str | None:
        chosen = source.disks[index].target_storage or self._asked.storage_class
        if chosen is not None and not SUBDOMAIN.fullmatch(chosen):
            raise TargetError(
                f"no storage class can be called {clean_name(chosen)}",
                id="target-storage",
                hint="`kubectl get storageclass` lists them",
            )
        return chosen

    def _volumes(self, source: Source) -> list[str]:
        name = kube_name(source.name)
        return [disk_name(name, index) for index in range(len(source.disks))]
