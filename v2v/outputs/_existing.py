"""What outputs share that write to disks which are there already: block devices, NBD exports.

Nothing is created there, so nothing is removed: what an unfinished job has written stays. The
guest's description goes into a file of this host.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from lxml import etree

from v2v.copy.sinks import Sink
from v2v.errors import UsageError
from v2v.hardware import Hardware, target_hardware
from v2v.options import REPEATED, option
from v2v.output import Output, copy_options, data_size, is_begun, is_comparable, is_copied
from v2v.outputs._assigned import assigned
from v2v.outputs._description import Description
from v2v.outputs._domain import domain_xml
from v2v.outputs._files import safe_name
from v2v.outputs._virsh import start_command
from v2v.run import Run
from v2v.targets import Opened, Place
from v2v.texts import clean
from v2v.types import Allocation, ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

WRITTEN = "written-places"  # journal: places that this job has begun to write to, with identities


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingOptions:
    storage: str | None = option("-os", "where the first disk goes", default=None, metavar="WHERE")
    disks: REPEATED = option(
        "-oo disk",
        "where the next disk goes, or with a number that disk; may be repeated",
        default=(),
        metavar="[N:]WHERE",
    )
    description: Path | None = option(
        "-oo description",
        "file for the libvirt domain that describes the guest (default: in the job's folder)",
        default=None,
        metavar="FILE",
    )
    allocation: Allocation = option(
        "-oa", "sparse: zeroes may give their space back", default=Allocation.SPARSE
    )
    force: bool = option("--force", "overwrite disks that hold something", default=False)


class ExistingOutput(Output):
    Options: ClassVar[type] = ExistingOptions
    existing = True

    options: ExistingOptions

    @abstractmethod
    def place(self, word: str) -> Place:
        """What a word of the options names. UsageError if that is nothing of the kind."""

    @abstractmethod
    def describe_disk(self, element: etree._Element, disk: TargetDisk) -> None:
        """Set type and source of a domain's <disk>, which names a file so far."""

    def check_source(self, source: Source, run: Run) -> None:
        places = self._places(len(source.disks))
        for one, other in combinations(places, 2):
            if one.is_same(other):
                raise UsageError(
                    f"-o {self.mode}: {one.shown} and {other.shown} share their bytes",
                    id="option-conflict",
                    hint="each disk needs a place of its own",
                )
        self._description(source, run).check(source)
        for index, (place, disk) in enumerate(zip(places, source.disks, strict=True)):
            if not is_copied(run, index):
                place.check(source)
                blank = not self.options.force and not self._is_ours(index, place, run)
                size = place.look(copy_options(run), run, blank=blank)
                place.check_size(disk.size or 0, size)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        for place, size in zip(self._places(len(sizes)), sizes, strict=True):
            place.check_size(size, place.look(copy_options(run), run, blank=False))

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        return tuple(
            TargetDisk(place.shown, place.shown, DiskFormat.RAW, size)
            for place, size in zip(self._places(len(sizes)), sizes, strict=True)
        )

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        with ExitStack() as stack:
            places = [self.place(disk.working) for disk in disks]
            sinks = [
                stack.enter_context(
                    place.open(self._opened(index, disk, place, run), run, sparse=self._sparse)
                )
                for index, (place, disk) in enumerate(zip(places, disks, strict=True))
            ]
            run.journal.put(WRITTEN, {place.shown: place.identity() for place in places})
            yield sinks

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        description, name = self._description(source, run), safe_name(source.name)
        hardware = replace(target_hardware(source, guest), name=name)
        description.publish(lambda: self._domain(hardware, disks))
        return GuestRef(
            name=name,
            disks=tuple(disks),
            metadata=str(description.final),
            start_hint=start_command(name, description.final),
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        if self.options.description is not None:
            Description(self.options.description, run, force=self.options.force).discard()
        if disks and WRITTEN in run.journal:
            run.warn(
                f"{', '.join(disk.working for disk in disks)}: what was written there stays",
                id="target-left",
                hint="a new job with --force overwrites it",
            )

    @property
    def overwrites(self) -> bool:  # type: ignore[override]
        return self.options.force

    @property
    def _sparse(self) -> bool:
        return self.options.allocation is Allocation.SPARSE

    def _is_ours(self, index: int, place: Place, run: Run) -> bool:
        """Whether this job has written there. What can be compared is, before more is written:
        no other disk that has the place by now is taken for the job's.
        """
        known = run.journal.get(WRITTEN, dict[str, str]) if WRITTEN in run.journal else {}
        if is_begun(run, index) or is_copied(run, index) or is_comparable(run, index):
            return place.shown in known
        return known.get(place.shown) == place.identity()

    def _opened(self, index: int, disk: TargetDisk, place: Place, run: Run) -> Opened:
        return Opened(
            size=disk.size,
            used=data_size(disk, index, run),
            resumed=self._is_ours(index, place, run),
            force=self.options.force,
            options=copy_options(run),
        )

    # Details --------------------------------------------------------------------------------------

    def _places(self, count: int) -> list[Place]:
        """One for each disk, in the order of the disks."""
        words = assigned(self.options.storage, self.options.disks, count, mode=self.mode)
        return [self._place(word) for word in words]

    def _place(self, word: str) -> Place:
        if not unquote(word).isprintable():  # such as a domain could not name
            raise UsageError(
                f"-o {self.mode}: {clean(word)} holds control characters, or what is no text",
                id="option-value",
                hint="give it another name, such as a link's",
            )
        return self.place(word)

    def _description(self, source: Source, run: Run) -> Description:
        final = self.options.description or run.folder / f"{safe_name(source.name)}.xml"
        return Description(final, run, force=self.options.force)

    def _domain(self, hardware: Hardware, disks: Sequence[TargetDisk]) -> bytes:
        domain = etree.fromstring(domain_xml(hardware, disks))
        for element, disk in zip(
            domain.iterfind("devices/disk[@device='disk']"), disks, strict=True
        ):
            self.describe_disk(element, disk)
        etree.indent(domain)
        return etree.tostring(domain, encoding="utf-8", xml_declaration=True)


def new_source(element: etree._Element, **attributes: str) -> etree._Element:
    """The <source> of a <disk>, with these attributes instead of a file."""
    (source,) = element.iterfind("source")
    source.attrib.clear()
    for name, value in attributes.items():
        source.set(name, value)
    return source
