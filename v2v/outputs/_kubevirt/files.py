"""The way without a cluster: disks and a manifest in a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.hardware import Hardware, target_hardware
from v2v.options import option
from v2v.outputs._folder import FolderOptions, FolderOutput
from v2v.outputs._kubevirt import devices, manifest
from v2v.outputs._kubevirt.guessed import guessed_format
from v2v.outputs._kubevirt.manifest import Wishes
from v2v.outputs._kubevirt.names import disk_name, kube_name
from v2v.outputs._kubevirt.networks import attach
from v2v.run import Run
from v2v.types import Allocation, ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOptions(FolderOptions):
    start: bool = option("--start", "", default=False)
    namespace: str | None = option("-oo namespace", "", default=None)
    timezone: str | None = option("-oo timezone", "", default=None)


class FilesWay(FolderOutput):
    """NAME-sda, NAME-sdb, ... and NAME.yaml."""

    mode = "kubevirt"
    suffix = ".yaml"

    options: FilesOptions

    @property
    def wishes(self) -> Wishes:
        return Wishes(
            namespace=self.options.namespace,
            start=self.options.start,
            timezone=self.options.timezone,
            preallocated=self.options.allocation is Allocation.PREALLOCATED,
        )

    def check_source(self, source: Source, run: Run) -> None:
        attach(source.nics or ())
        super().check_source(source, run)

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        devices.check_guest(guest)

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        for one in manifest.differences(target_hardware(source, guest), self.wishes):
            run.warn(one.text, id=one.id, hint=one.hint)
        ref = super().finalize(source, guest, disks, run)
        self._tell_guessed(ref.disks, run)
        folder = shlex.quote(str(self.options.storage))
        commands = [f"cd {folder}", *self._commands(ref.name, ref.disks)]
        if not self.options.start:
            commands.append(self._virtctl("start", kube_name(ref.name)))
        return replace(ref, start_hint=" && ".join(commands))

    def _tell_guessed(self, disks: Sequence[TargetDisk], run: Run) -> None:
        for index, disk in enumerate(disks):
            guess = disk.format is DiskFormat.RAW and guessed_format(Path(disk.location))
            if guess:
                run.warn(
                    f"disk {index + 1} begins as a file of the format {guess} does, for which CDI "
                    "would take it: it would convert it to something else, and could be made to "
                    "read files of its own",
                    id="kubevirt-guessed",
                    hint="write qcow2 images, whose content is not guessed: -of qcow2",
                )

    def description(self, hardware: Hardware, disks: Sequence[TargetDisk]) -> bytes:
        name = kube_name(hardware.name)
        volumes = [
            manifest.data_volume(
                disk_name(name, index), disk.size, self.wishes, file=Path(disk.location).name
            )
            for index, disk in enumerate(disks)
        ]
        comment = [
            "The VM waits for its volumes, and they for the images that are beside this file:",
            *(f"    {line}" for line in self._commands(hardware.name, disks)),
        ]
        machine = manifest.virtual_machine(hardware, self.wishes)
        return manifest.to_yaml(comment, [*volumes, machine])

    def start_hint(self, name: str, description: Path) -> str:
        return f"kubectl apply -f {shlex.quote(str(description))}"

    def _commands(self, name: str, disks: Sequence[TargetDisk]) -> Iterator[str]:
        """What puts all of it into a cluster, in the folder; `name` is the files'."""
        yield f"kubectl apply{self._namespace} -f {shlex.quote(f'./{name}{self.suffix}')}"
        for index, disk in enumerate(disks):
            image = shlex.quote(f"--image-path=./{Path(disk.location).name}")
            volume = disk_name(kube_name(name), index)
            yield self._virtctl("image-upload", "dv", volume, "--no-create", image)

    def _virtctl(self, *words: str) -> str:
        return f"virtctl{self._namespace} {' '.join(words)}"

    @property
    def _namespace(self) -> str:
        return f" -n {self.options.namespace}" if self.options.namespace else ""
