"""A VM of VMware in a folder of a store: of an ESXi host that is reached over SSH.

Paths in the store are as the user wrote them, or as the .vmx file does. Whether a disk may be read
is told by its real path, in which datastores are called by their UUIDs, and no link is left.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from v2v.errors import SourceError, V2VError
from v2v.image.names import last_part, refused
from v2v.input import MODIFIED
from v2v.inputs._vmware import VOLUMES, datastore_of
from v2v.inputs._vmx.drives import Drive
from v2v.inputs._vmx.folder import ENDINGS, only_vmx
from v2v.inputs._vmx.local import SHOWN, data_files, missing, tell_moved, unnamed
from v2v.inputs._vmx.places import RemotePlace, is_plain
from v2v.inputs._vmx.text import MAX_BYTES
from v2v.run import Run
from v2v.texts import clean
from v2v.types import DiskFormat, SourceDisk
from v2v.vmdk import open_disk
from v2v.vmdk.store import Entry, Kind, ListingStore

ROOTS = "roots"  # in SourceDisk.details: folders that it may refer to files of, a line each
REAL = "real"  # the real path of its descriptor
MAX_NAME = 1024  # bytes; a file's name has 255 at most
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class RemoteFolder:
    """See VmFolder. `path` is the .vmx file, or the folder that holds it.

    `known`: what is in that folder, where somebody has looked already.
    """

    remote = True

    def __init__(
        self,
        store: ListingStore,
        place: RemotePlace,
        path: str,
        allowed: Sequence[str] = (),
        known: Sequence[Entry] | None = None,
    ) -> None:
        self._store, self._place = store, place
        path = posixpath.normpath(path)
        is_vm = path.lower().endswith(ENDINGS)
        self._folder = posixpath.dirname(path) if is_vm else path
        self._entries = _by_name(known or self._listed(path))
        name = posixpath.basename(path)
        name = name if is_vm else only_vmx(place.shown(path), self._entries)
        self._path = posixpath.join(self._folder, name)
        if name in self._entries and self._entries[name].kind == Kind.LINK:  # the disks are there
            self._path = store.real_path(self._path)
            self._folder = posixpath.dirname(self._path)
            self._entries = _by_name(self._listed(path))
        self.vmx, self.stem = place.shown(self._path), posixpath.splitext(name)[0]
        self._real = ""
        self._allowed = tuple(allowed)

    def _listed(self, path: str) -> Sequence[Entry]:
        """What is in the folder; `path` is what the user named."""
        try:
            return self._store.entries(self._folder)
        except SourceError as exc:
            if exc.id != "image-file-missing":
                raise
            raise self._gone(path) from exc

    def _gone(self, path: str) -> SourceError:
        return SourceError(
            f"{self._place.shown(path)}: no such file",
            id="source-missing",
            hint="is the path right? A space is %20 in an address, % is %25; "
            f"`v2v list -ic esx+{self._place.ssh.shown}` lists the VMs there",
        )

    def read_vmx(self) -> bytes:
        if posixpath.basename(self._path) not in self._entries:
            raise self._gone(self._path)
        return self._store.open(self._path).read(0, MAX_BYTES + 1)

    def read(self, name: str) -> bytes:
        path = posixpath.join(self._folder, name)
        if not self._is_plain(name):
            self._check_place(path, self._store.real_path(path), (self.real,))
        return self._store.open(path).read(0, MAX_BYTES + 1)

    def entries(self, folder: str = "") -> Mapping[str, Kind]:
        if folder:
            found = self._store.entries(posixpath.join(self._folder, folder))
            return {one.name: one.kind for one in found}
        return {name: one.kind for name, one in self.files.items()}

    @property
    def files(self) -> Mapping[str, Entry]:
        """What the VM's folder holds, by name; asked for once."""
        return self._entries

    def shown(self, name: str) -> str:
        return self._place.shown(posixpath.join(self._folder, name))

    @property
    def real(self) -> str:
        """The folder without links."""
        if not self._real:
            self._real = posixpath.dirname(self._store.real_path(self._path))
        return self._real

    @property
    def roots(self) -> tuple[str, ...]:
        """Where the files of disks may be: all datastores of an ESXi host, as it allows itself."""
        before, volumes, _ = f"{self.real}/".partition(f"{VOLUMES}/")
        return (before + VOLUMES if volumes else self.real, *self._allowed)

    def disk(self, drive: Drive, run: Run) -> SourceDisk:
        path = self.find(drive.file, run)
        real = self._store.real_path(path)
        with as_written({REAL: real}, path):
            disk = open_disk(self._store, path, roots=self.roots)
        told = {MODIFIED: disk.version} if disk.version else {}
        return SourceDisk(
            self._place.location(path),
            DiskFormat.VMDK,
            disk.size,
            details={ROOTS: "\n".join(self.roots), REAL: real, **told},
            storage=datastore_of(path),
        )

    def nvram(self, name: str) -> str | None:
        if not self._is_plain(name):
            return None
        return self._place.location(posixpath.join(self._folder, name))

    def find(self, name: str, run: Run) -> str:
        """The file of a disk. A path that is not there means the file beside the .vmx."""
        if not name:
            raise unnamed(self.vmx)
        if not is_plain(name) or len(name.encode(errors="replace")) > MAX_NAME:
            raise refused(self.vmx, name[:SHOWN], "it is not a plain file name")
        path = posixpath.join(self._folder, name)
        if self._is_plain(name):
            return path
        of_another_host = name.startswith("/") or _WINDOWS.match(name)
        beside = posixpath.join(self._folder, last_part(name))
        try:
            return self._checked(name, path, run)
        except SourceError as exc:
            if exc.id not in ("image-file-missing", "image-names-other-file"):
                raise
            if of_another_host and self._is_plain(last_part(name)):
                tell_moved(self.vmx, name, self._place.shown(beside), run)
                return beside
            if exc.id == "image-file-missing":
                raise self._missing(name) from exc
            raise

    def _is_plain(self, name: str) -> bool:
        """It is a file beside the .vmx, and no link: where it is need not be asked."""
        return name in self.files and self.files[name].kind == Kind.FILE

    def _checked(self, name: str, path: str, run: Run) -> str:
        """It is there, and lies where it may. What lies elsewhere is not even opened."""
        real = self._store.real_path(path)
        self._check_place(name, real, (self.real, *self.roots))
        self._store.open(path)
        if not _is_below(real, self.real):
            run.warn(
                f"{self.vmx} has a disk in another folder: {self._place.shown(path)}",
                id="vmx-disk-elsewhere",
                hint="if it belongs to another VM too, that must be shut down as well",
            )
        return path

    def _check_place(self, name: str, real: str, roots: Sequence[str]) -> None:
        if not any(_is_below(real, root) for root in roots):
            raise refused(self.vmx, name[:SHOWN], "it lies outside of the VM's folder")

    def _missing(self, name: str) -> SourceError:
        there = next((one for one in data_files(last_part(name)) if one in self.files), None)
        hint = "is it on a datastore that is not mounted, or was it deleted?"
        if there:
            hint = f"{clean(there[:SHOWN])} is only the data: the small text file that names it is "
            hint += "gone; make it anew (VMware's KB 1002511)"
        return missing(self.vmx, clean(name), hint)


def _by_name(entries: Sequence[Entry]) -> Mapping[str, Entry]:
    return {one.name: one for one in entries if is_plain(one.name)}


@contextmanager
def as_written(details: Mapping[str, str], path: str) -> Iterator[None]:
    """Errors that name files by real paths name them as the user wrote the `path` of the disk."""
    real, folder = posixpath.dirname(details[REAL]) + "/", posixpath.dirname(path) + "/"
    try:
        yield
    except V2VError as exc:
        message, hint = exc.message.replace(real, folder), (exc.hint or "").replace(real, folder)
        if (message, hint) == (exc.message, exc.hint or ""):
            raise
        raise type(exc)(message, id=exc.id, hint=hint or None) from exc


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
