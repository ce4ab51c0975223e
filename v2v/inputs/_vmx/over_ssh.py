"""VMs of VMware on a host that is reached over SSH: finding, reading and serving them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from v2v.address import parse
from v2v.endpoint import Endpoint
from v2v.errors import SourceError
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vmware import VOLUMES
from v2v.inputs._vmx.datastores import Found, find_vms
from v2v.inputs._vmx.listing import find_by_name, path_of, summaries
from v2v.inputs._vmx.places import RemotePlace
from v2v.inputs._vmx.remote import ROOTS, RemoteFolder, as_written
from v2v.inputs._vmx.vm import read_folder
from v2v.run import Run
from v2v.types import GuestSummary, Source, SourceDisk
from v2v.vmdk.store import ListingStore


@dataclass(frozen=True, slots=True)
class Host:
    """Where a VM is, or VMs are looked for."""

    ssh: SshPlace
    path: str  # of the VM; or of the folder with the datastores, or of one of these
    allowed: tuple[str, ...] = ()  # where else files of disks may be

    @property
    def place(self) -> RemotePlace:
        return RemotePlace(self.ssh)

    @property
    def volumes(self) -> str:
        """The folder with all datastores."""
        before, volumes, _ = f"{self.path}/".partition(f"{VOLUMES}/")
        return before + VOLUMES if volumes else self.path


def read_host(host: Host, word: str | None, snapshot: str | None, run: Run) -> Source:
    """One VM. `word` is its name; without one, the host's path is that of the VM."""
    with _store(host, run) as store:
        return read_folder(_folder(store, host, word, run), snapshot, run)


def list_host(host: Host, run: Run) -> Sequence[GuestSummary]:
    with _store(host, run) as store:
        return summaries(store, host.place, _found(store, host, run), run)


@contextmanager
def serve_host(
    ssh: SshPlace, disks: Sequence[SourceDisk], run: Run
) -> Iterator[Sequence[Endpoint]]:
    """The disks of a VM, read-only, in their order."""
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(_served(ssh, disk, run, f"source-{index}"))
            for index, disk in enumerate(disks)
        )


@contextmanager
def _served(ssh: SshPlace, disk: SourceDisk, run: Run, name: str) -> Iterator[Endpoint]:
    path = parse(disk.location).path
    recipe = Recipe(path, tuple(disk.details[ROOTS].split("\n")), ssh=ssh)
    with as_written(disk.details, path), serve_recipe(recipe, run, name) as endpoint:
        yield endpoint


@contextmanager
def _store(host: Host, run: Run) -> Iterator[ListingStore]:
    from v2v.inputs._ssh import choose  # with paramiko, which is slow to load

    def tell(text: str) -> None:
        """Serving the disks tells the same."""

    with choose.open_store(host.ssh, cancel=run.cancel, tell=tell) as store:
        yield store


def _folder(store: ListingStore, host: Host, word: str | None, run: Run) -> RemoteFolder:
    path = host.path if word is None else path_of(word, host.volumes)
    if path is not None:
        return RemoteFolder(store, host.place, path, host.allowed)
    assert word is not None  # noqa: S101
    found = find_by_name(store, host.place, _found(store, host, run), word, run)
    return RemoteFolder(store, host.place, found.path, host.allowed, found.entries)


def _found(store: ListingStore, host: Host, run: Run) -> list[Found]:
    try:
        return find_vms(store, posixpath.normpath(host.path), run)
    except SourceError as exc:
        if exc.id != "image-file-missing":
            raise
        raise SourceError(
            f"{host.place.shown(host.path)}: no such folder",
            id="source-missing",
            hint="is it an ESXi host? Its datastores are in /vmfs/volumes, by their names",
        ) from exc
