"""Jobs in a program's own words: arguments instead of a Job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from v2v import events, opening
from v2v.api.execution import Result
from v2v.api.jobs import start
from v2v.api.looking import inspect_guest, open_guest
from v2v.cancel import Cancel
from v2v.converter import Inspection
from v2v.events import Emit
from v2v.job import ConversionOptions, CopyOptions, Job, ModuleChoice, NicMap, StorageMap
from v2v.opening import OpenedGuest


def convert(
    *guests: str | Path,
    input: str = "disk",
    output: str = "local",
    storage: str | Path | None = None,
    name: str | None = None,
    input_options: dict[str, str] | None = None,
    output_options: dict[str, str] | None = None,
    conversion: ConversionOptions | None = None,
    nic_maps: Sequence[NicMap] = (),
    storage_maps: Sequence[StorageMap] = (),
    boot_check: float | None = None,
    copy: CopyOptions | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Result:
    """Convert one VM.

    guests: its disks, its metadata file or its name, as the input takes them. storage: where to
    put it (-os). input_options and output_options: the module's words by flag, {"-of": "qcow2",
    "-oo compressed": ""}. nic_maps: where the source's networks go. storage_maps: where disks go
    that do not go to `storage`. boot_check: seconds allowed to boot, None for no check. copy: how
    the disks are copied.
    """
    words = dict(output_options or {})
    if storage is not None:
        words["-os"] = str(storage)
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice(output, words),
        guests=tuple(str(guest) for guest in guests),
        name=name,
        nic_maps=tuple(nic_maps),
        storage_maps=tuple(storage_maps),
        conversion=conversion or ConversionOptions(),
        boot_check=boot_check,
        copy=copy or CopyOptions(),
    )
    return start(job, jobs=jobs, emit=emit, cancel=cancel)


def inspect(
    *guests: str | Path,
    input: str = "disk",
    input_options: dict[str, str] | None = None,
    conversion: ConversionOptions | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Inspection:
    """Look at one VM without changing anything; arguments as for `convert`."""
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice("null"),
        guests=tuple(str(guest) for guest in guests),
        conversion=conversion or ConversionOptions(),
    )
    return inspect_guest(job, jobs=jobs, emit=emit, cancel=cancel)


@contextmanager
def open_disks(
    *guests: str | Path,
    input: str = "disk",
    input_options: dict[str, str] | None = None,
    writable: bool = False,
    socket_dir: str | Path | None = None,
    tcp: str | int | None = None,
    tls_certificates: str | Path | None = None,
    tls_psk_file: str | Path | None = None,
    insecure: bool = False,
    fuse: str | Path | None = None,
    jobs: Path | None = None,
    emit: Emit = events.ignore,
    cancel: Cancel | None = None,
) -> Iterator[OpenedGuest]:
    """Show one VM's disks to other programs while the `with` block lasts, and convert nothing.

    Each disk has an NBD address, and with `fuse`, a folder, a raw file too. writable: to
    throw-away overlays. tcp: [HOST:]PORT rather than Unix sockets. See docs/open.md; the other
    arguments are as for `convert`. The block is to be left in the thread that entered it.
    """
    job = Job(
        input=ModuleChoice(input, dict(input_options or {})),
        output=ModuleChoice("null"),
        guests=tuple(str(guest) for guest in guests),
    )
    how = opening.exposure(
        writable=writable,
        socket_dir=socket_dir,
        tcp=tcp,
        tls_certificates=tls_certificates,
        tls_psk_file=tls_psk_file,
        insecure=insecure,
        fuse=fuse,
    )
    with open_guest(job, how, jobs=jobs, emit=emit, cancel=cancel) as opened:
        yield opened
