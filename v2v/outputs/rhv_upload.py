"""-o rhv-upload: a VM of oVirt, whose disks are streamed to its hosts through image transfers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from v2v.cancel import Cancel
from v2v.copy.sinks import Sink
from v2v.errors import TargetError, V2VError
from v2v.hardware import target_hardware
from v2v.output import (
    Output,
    copy_options,
    data_size,
    forget_progress,
    is_begun,
    is_copied,
)
from v2v.outputs._limits import check_sectors
from v2v.outputs._ovirt import disks as engine_disks
from v2v.outputs._ovirt import domains, names, networks, precheck, transfers, vms
from v2v.outputs._ovirt.engine import Engine, open_engine
from v2v.outputs._ovirt.imageio import GRAIN, REQUEST, imageio_sink
from v2v.outputs._ovirt.limits import COUNT, check_disks, check_ports
from v2v.outputs._ovirt.losses import tell_losses
from v2v.outputs._ovirt.options import UploadOptions, check_options, login
from v2v.outputs._ovirt.places import Transfer
from v2v.outputs._ovirt.precheck import Place
from v2v.run import Run
from v2v.types import ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

PLACE = "rhv-place"  # journal: cluster and storage domains
CREATED = "rhv-created"  # journal: there may be something at the engine
WRITTEN = "rhv-written"  # journal: with a disk's number, once it may be other than blank

HURRY_SECONDS = 60.0  # to end transfers after a failure; `resume` and `discard` end what is left


class RhvUploadOutput(Output):
    mode = "rhv-upload"
    aliases = ("ovirt-upload", "ovirt_upload", "rhv_upload")
    summary = "a VM of oVirt, through its engine's API; the disks are streamed to its hosts"
    Options = UploadOptions
    request_size = REQUEST  # measured there
    data_grain = GRAIN
    bootable = False
    per_disk_storage = True

    options: UploadOptions

    # Before the copy ------------------------------------------------------------------------------

    def check_source(self, source: Source, run: Run) -> None:
        check_options(self.options, len(source.disks))
        check_disks(source, run, mode=self.mode)
        with open_engine(self.options, run) as engine:
            place = precheck.find_place(engine, self.options, source)
            domains.check_allocation(self.options, place.domains)
            precheck.check_firmware(place, source.firmware, secure_boot=source.secure_boot)
            precheck.check_names(engine, self.options, source, run)
            networks.find_profiles(engine, place, source.nics or ())
        run.journal.put(PLACE, place)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        check_sectors(sizes, mode=self.mode)
        domains.check_space(self.options, self._place(run).domains, sizes, used)

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        place = self._place(run)
        precheck.check_machine(place, guest, mode=self.mode)
        check_ports(guest, run, mode=self.mode)
        precheck.check_firmware(place, guest.firmware, secure_boot=False)

    # The disks ------------------------------------------------------------------------------------

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        """Their UUIDs follow from the job's id, or were chosen: nothing is created unknown."""
        wanted = tuple(self._disk(index, size, run) for index, size in enumerate(sizes))
        with open_engine(self.options, run) as engine:
            run.journal.put(PLACE, precheck.find_place(engine, self.options, source))
            if CREATED in run.journal:  # the VM had other disks then
                forget_progress(run)
                self._remove_own(engine, (), run)
            try:
                self._create(engine, dict(enumerate(wanted)), run)
            except BaseException:
                self._try_to_discard(wanted, run)
                raise
        return wanted

    def _disk(self, index: int, size: int, run: Run) -> TargetDisk:
        uuid = names.disk_uuid(index, self.options, run)
        location = f"{login(self.options).url}/disks/{uuid}"
        return TargetDisk(location, uuid, DiskFormat(self.options.format), size)

    def _create(self, engine: Engine, wanted: Mapping[int, TargetDisk], run: Run) -> None:
        """Make these disks, or make them anew, blank."""
        place, uuids = self._place(run), [disk.working for disk in wanted.values()]
        run.journal.put(CREATED, True)
        forget_progress(run, wanted)
        transfers.cancel(engine, uuids)
        engine_disks.remove(engine, uuids)
        for index, disk in wanted.items():
            engine_disks.add(
                engine,
                self.options,
                place.domains[index],
                uuid=disk.working,
                name=place.disk_names[index],
                size=disk.size,
                data=data_size(disk, index, run),
            )
        for uuid in uuids:
            engine_disks.wait_ok(engine, uuid)
        run.journal.drop([f"{WRITTEN}:{index}" for index in wanted])

    # The copy -------------------------------------------------------------------------------------

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        stall = copy_options(run).stall_timeout
        with self._transfers(disks, run) as opened, ExitStack() as stack:
            yield [
                stack.enter_context(
                    imageio_sink(transfer, is_zero=blank, stall=stall, cancel=run.cancel)
                )
                for transfer, blank in opened
            ]

    @contextmanager
    def _transfers(
        self, disks: Sequence[TargetDisk], run: Run
    ) -> Iterator[list[tuple[Transfer, bool]]]:
        """Where to write each disk, and whether it reads as zeroes. Afterwards none is locked."""
        with open_engine(self.options, run) as engine:
            try:
                opened = self._open(engine, disks, run)
            except BaseException:
                self._try_to_settle(disks, run)
                raise
        try:
            yield opened
            with open_engine(self.options, run) as engine:
                transfers.settle(engine, [disk.working for disk in disks])
        except BaseException:
            self._try_to_settle(disks, run)
            raise

    def _open(
        self, engine: Engine, disks: Sequence[TargetDisk], run: Run
    ) -> list[tuple[Transfer, bool]]:
        place = self._place(run)
        kept = [self._is_kept(engine, index, disk, run) for index, disk in enumerate(disks)]
        zero = [domains.is_zero(self.options, domain) for domain in place.domains]
        host = precheck.this_host(engine, place)
        for index in range(len(disks)):
            run.journal.put(f"{WRITTEN}:{index}", True)
        started = [transfers.start(engine, disk.working, host) for disk in disks]
        return [
            (transfers.ready(engine, one, disk, self.options), blank and not keep)
            for one, disk, blank, keep in zip(started, disks, zero, kept, strict=True)
        ]

    def _is_kept(self, engine: Engine, index: int, disk: TargetDisk, run: Run) -> bool:
        """Whether the disk holds something that counts as copied; else it is blank."""
        if not is_copied(run, index) and not is_begun(run, index):
            if f"{WRITTEN}:{index}" in run.journal:
                self._create(engine, {index: disk}, run)
            return False
        try:
            transfers.settle(engine, [disk.working])
        except TargetError as exc:
            if exc.id != "target-lost" or is_copied(run, index):
                raise
            run.warn(
                f"{exc.message}, which held a part of disk {index + 1}: it is copied again",
                id="target-part-lost",
            )
            self._create(engine, {index: disk}, run)
            return False
        return True

    def _try_to_settle(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """After a failure, which is what the user must hear of first."""
        uuids = [disk.working for disk in disks]
        try:
            with self._engine_to_the_end(run) as engine:
                for one in transfers.of_disks(engine, uuids):
                    if transfers.phase(one) == "paused_system":
                        run.warn(
                            "the engine had paused the image transfer",
                            id="transfer-paused",
                            hint="the events in the engine's portal tell why",
                        )
                transfers.settle(engine, uuids, HURRY_SECONDS)
        except V2VError as exc:
            if exc.id == "target-lost":
                return  # when all transfers were over
            run.warn(
                f"disks may stay locked, for image transfers could not be ended: {exc.message}",
                id="transfer-left",
                hint=f"`v2v resume {run.job_id}` goes on, `v2v jobs discard` removes them",
            )

    # The guest ------------------------------------------------------------------------------------

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        uuid, name = names.vm_uuid(run), names.vm_name(source.name)
        hardware = replace(target_hardware(source, guest), name=name)
        with open_engine(self.options, run) as engine:
            profiles = networks.find_profiles(engine, self._place(run), guest.nics)
            if vms.find(engine, uuid) is None:
                nics = tuple(
                    replace(nic, network=profile.network)
                    for nic, profile in zip(guest.nics, profiles, strict=True)
                )
                there = transfers.settle(engine, [disk.working for disk in disks])
                hardware = replace(hardware, nics=nics)
                tell_losses(hardware, run)
                ovf = vms.ovf(hardware, disks, there, uuid)
                vms.add(engine, self._place(run).cluster, ovf, uuid)
            vms.wait_ok(engine, uuid)
            vms.attach(engine, uuid, hardware, disks)
            vms.plug(engine, uuid, guest.nics, profiles)
            if self.options.start:
                vms.start(engine, uuid)
        return GuestRef(name, tuple(disks), metadata=f"{login(self.options).url}/vms/{uuid}")

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """What has a VM was handed over, and stays."""
        if CREATED not in run.journal:
            return  # a job that was refused can be discarded without its engine
        with self._engine_to_the_end(run) as engine:
            if vms.find(engine, names.vm_uuid(run)) is None:
                self._remove_own(engine, disks, run)

    def _remove_own(self, engine: Engine, disks: Sequence[TargetDisk], run: Run) -> None:
        """These disks, and all others that the job has."""
        known = {disk.working for disk in disks}
        count = run.journal.get(COUNT, int) if COUNT in run.journal else 0
        known |= {names.disk_uuid(index, self.options, run) for index in range(count)}
        own = sorted(known | {disk.id for disk in engine_disks.of_job(engine, run)})
        transfers.cancel(engine, own)
        engine_disks.remove(engine, own)

    def _try_to_discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        """After a failure, which is what the user must hear of."""
        try:
            self.discard(disks, run)
        except V2VError as exc:
            run.warn(
                f"disks that were made may be left: {exc.message}",
                id="target-leftover",
                hint=f"`v2v jobs discard {run.job_id}` removes them",
            )

    def _engine_to_the_end(self, run: Run) -> AbstractContextManager[Engine]:
        """To clean up, also when the job was cancelled."""
        return open_engine(self.options, run.part(cancel=Cancel()))

    def _place(self, run: Run) -> Place:
        return run.journal.get(PLACE, Place)
