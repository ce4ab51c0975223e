"""-o kubevirt: a VirtualMachine, as files in a folder or in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from v2v.copy.sinks import Sink
from v2v.output import Output
from v2v.outputs._folder import ImageFormat
from v2v.outputs._kubevirt import options as words
from v2v.outputs._kubevirt.cluster import ClusterWay
from v2v.outputs._kubevirt.files import FilesOptions, FilesWay
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.outputs._sinks import RAW_REQUEST
from v2v.run import Run
from v2v.types import ConvertedGuest, GuestRef, Source, TargetDisk


class KubevirtOutput(Output):
    """Disks and NAME.yaml in the folder of -os; or, with -oc or -oo kubeconfig, in a cluster."""

    mode = "kubevirt"
    summary = "a VirtualMachine of KubeVirt: files in a folder, or sent to a cluster through CDI"
    Options = KubevirtOptions
    tools = ("qemu-nbd", "qemu-img")
    request_size = RAW_REQUEST  # both ways write local files; measured in v2v/disk_sinks.py

    def __init__(self, options: KubevirtOptions) -> None:
        super().__init__(options)
        words.check(options)
        self._way = ClusterWay(options) if options.in_cluster else _files(options)

    @property
    def bootable(self) -> bool:  # type: ignore[override]
        return self._way.bootable

    @property
    def per_disk_storage(self) -> bool:  # type: ignore[override]
        return self._way.per_disk_storage

    @property
    def can_rewrite(self) -> bool:  # type: ignore[override]
        return self._way.can_rewrite

    def check_source(self, source: Source, run: Run) -> None:
        self._way.check_source(source, run)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        self._way.check_sizes(sizes, used, run)

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        self._way.check_guest(guest, run)

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        return self._way.create_disks(source, sizes, run)

    def connect(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> AbstractContextManager[Sequence[Sink]]:
        return self._way.connect(disks, run)

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        return self._way.finalize(source, guest, disks, run)

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        self._way.discard(disks, run)


def _files(options: KubevirtOptions) -> FilesWay:
    if options.storage is None:
        raise AssertionError("checked before")
    return FilesWay(
        FilesOptions(
            storage=options.storage,
            format=options.format or ImageFormat.RAW,
            allocation=options.allocation,
            compressed=options.compressed,
            force=options.force,
            start=options.start,
            namespace=options.namespace,
            timezone=options.timezone,
        )
    )
