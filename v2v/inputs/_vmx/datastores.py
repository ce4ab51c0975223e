"""The VMs on the datastores of an ESXi host, by their files: DATASTORE/FOLDER/NAME.vmx.

A host shows each datastore twice: as a folder whose name is a UUID, and as a link to it with the
name that people gave it. The folders of VMs on vSAN are shown like that, too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from v2v.errors import SourceError
from v2v.inputs._vmware import VOLUMES
from v2v.inputs._vmx.folder import ENDINGS
from v2v.inputs._vmx.places import is_plain
from v2v.run import Run
from v2v.texts import clean
from v2v.vmdk.store import Entry, Kind, ListingStore, Store

A = TypeVar("A")
B = TypeVar("B")

MAX_FOLDERS = 20_000  # of all datastores together
MAX_THREADS = 32
SHOWN = 5  # folders in a message


@dataclass(frozen=True, slots=True)
class Found:
    """A VM's .vmx file."""

    path: str
    entries: Sequence[Entry]  # what is in its folder

    @property
    def stem(self) -> str:
        return posixpath.splitext(posixpath.basename(self.path))[0]

    @property
    def folder(self) -> str:
        return posixpath.dirname(self.path)


def find_vms(store: ListingStore, path: str, run: Run) -> list[Found]:
    """Those on all datastores, if `path` is the folder of these, or on the one that it is.

    Sorted by path. Folders that may not be looked into are told.
    """
    unseen: list[str] = []

    def entries(folder: str) -> Sequence[Entry]:
        try:
            return store.entries(folder)
        except SourceError as exc:
            if exc.id not in ("source-unreadable", "image-file-missing"):
                raise
            unseen.append(folder)
            return ()

    path = posixpath.normpath(path)
    datastores = [path]
    if path.endswith(VOLUMES):
        datastores = _folders(store, path, store.entries(path), run)
    seen = each(store, entries, datastores, run)
    if datastores == [path] and unseen:
        store.entries(path)  # its error
    inside = [
        folder
        for datastore, found in zip(datastores, seen, strict=True)
        for folder in _folders(store, datastore, found, run)
    ]
    folders = [*datastores, *inside[:MAX_FOLDERS]]
    unseen += inside[MAX_FOLDERS:]
    seen += each(store, entries, folders[len(datastores) :], run)
    _tell_unseen(unseen, run)
    return sorted(
        (
            Found(posixpath.join(folder, one.name), found)
            for folder, found in zip(folders, seen, strict=True)
            for one in found
            if one.kind == Kind.FILE and one.name.lower().endswith(ENDINGS) and is_plain(one.name)
        ),
        key=lambda one: one.path,
    )


def each(store: Store, action: Callable[[A], B], things: Iterable[A], run: Run) -> list[B]:
    """What the action gives of each, in their order; several at once, as the store can."""

    def checked(thing: A) -> B:
        run.cancel.check()
        return action(thing)

    with ThreadPoolExecutor(max(1, min(store.parallel, MAX_THREADS))) as pool:
        futures = [pool.submit(checked, thing) for thing in things]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _folders(store: Store, path: str, entries: Sequence[Entry], run: Run) -> list[str]:
    """The folders in a folder, each once: by the name of the link to it, if there is one."""
    visible = [one for one in entries if not one.name.startswith(".") and is_plain(one.name)]
    links = sorted(one.name for one in visible if one.kind == Kind.LINK)
    folders = [one.name for one in visible if one.kind == Kind.FOLDER]
    if not links:
        return [posixpath.join(path, name) for name in folders]
    base = store.real_path(path)
    names = {posixpath.join(base, name): name for name in folders}
    targets = each(store, lambda name: _target(store, posixpath.join(path, name)), links, run)
    for link, target in zip(reversed(links), reversed(targets), strict=True):
        if target in names:
            names[target] = link
    return [posixpath.join(path, name) for name in names.values()]


def _target(store: Store, link: str) -> str:
    try:
        return store.real_path(link)
    except SourceError as exc:
        if exc.id != "image-file-missing":
            raise
        return ""


def _tell_unseen(folders: Sequence[str], run: Run) -> None:
    if folders:
        more = f" and {len(folders) - SHOWN} others" if len(folders) > SHOWN else ""
        run.warn(
            f"VMs may be missing: {clean(', '.join(sorted(folders)[:SHOWN]))}{more} cannot be "
            "looked into",
            id="datastore-unseen",
            hint="log in as a user that may: root, as a rule",
        )
