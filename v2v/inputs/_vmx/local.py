"""A VM of VMware in a folder of this host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from v2v.errors import SourceError
from v2v.image.names import is_of_another_host, last_part, moved_file, named_file
from v2v.inputs._images import Access, read_disk
from v2v.inputs._metadata_file import read_metadata_file
from v2v.inputs._vmx.drives import Drive
from v2v.inputs._vmx.folder import only_vmx
from v2v.inputs._vmx.text import MAX_BYTES
from v2v.run import Run
from v2v.types import SourceDisk
from v2v.vmdk import LocalStore
from v2v.vmdk.store import Kind

SHOWN = 200  # characters of a name in a message


class LocalFolder:
    """See VmFolder. `word` is the .vmx file, or the folder that holds it."""

    remote = False

    def __init__(self, word: str, access: Access) -> None:
        path = Path(word).expanduser().absolute()
        if path.is_dir():
            path /= only_vmx(str(path), (one.name for one in path.iterdir()))
        self._path = _resolved(path)
        self._access = access
        self.vmx, self.stem = str(self._path), self._path.stem

    def read_vmx(self) -> bytes:
        return _read_text(self._path)

    def read(self, name: str) -> bytes:
        return _read_text(named_file(self._path, name, ()))

    def entries(self, folder: str = "") -> Mapping[str, Kind]:
        with LocalStore() as store:
            found = store.entries(str(self._path.parent / folder))
        return {one.name: one.kind for one in found}

    def shown(self, name: str) -> str:
        return str(self._path.parent / name)

    def disk(self, drive: Drive, run: Run) -> SourceDisk:
        file = self._file(drive.file, run)
        try:
            return read_disk(str(file), self._access, run)
        except SourceError as exc:
            if exc.id != "image-format-wrong":
                raise
            raise SourceError(
                exc.message,
                id=exc.id,
                hint="a VM's file names the small .vmdk of a disk, which names the data: is it it?",
            ) from exc

    def nvram(self, name: str) -> str | None:
        try:
            return str(named_file(self._path, name, ())) if name else None
        except SourceError:
            return None

    def _file(self, name: str, run: Run) -> Path:
        """The .vmdk that the VMX means. A path of the VMware host means the file beside the VMX."""
        vmx = self._path
        if not name:
            raise unnamed(self.vmx)
        if beside := moved_file(vmx, name):
            tell_moved(self.vmx, name, str(beside), run)
            return beside
        if is_of_another_host(name):
            raise SourceError(
                f"{vmx} needs the disk {name[:SHOWN]}, which is not on this host",
                id="vmx-disk-missing",
                hint=f"copy {last_part(name)[:SHOWN]}, and what belongs to it, into {vmx.parent}; "
                "or mount the datastore at that path and allow it: -io allow-backing=FOLDER",
            )
        try:
            return named_file(vmx, name, self._access.allowed)
        except SourceError as exc:
            if exc.id != "image-file-missing":
                raise
            raise self._missing(name) from exc

    def _missing(self, name: str) -> SourceError:
        """A descriptor is small, and has a plainer name than its data: it is what is forgotten."""
        folder = self._path.parent
        data = [folder / one for one in data_files(name)]
        there = next((file for file in data if file.exists()), None)
        hint = f"copy it from the VM's folder to {folder}"
        if there:
            hint = f"{there.name} is only the data: copy the small {name[:SHOWN]} too, a text file"
        return missing(self.vmx, name, hint)


def data_files(name: str) -> list[str]:
    """How the data of a disk is usually called."""
    return [f"{name.removesuffix('.vmdk')}{end}.vmdk" for end in ("-flat", "-delta")]


def unnamed(vmx: str) -> SourceError:
    return SourceError(
        f"{vmx} has a disk whose file it does not name",
        id="vmx-disk-missing",
        hint="which of its drives is present and has no fileName? Name the file, or remove it",
    )


def missing(vmx: str, name: str, hint: str) -> SourceError:
    return SourceError(
        f"{vmx} needs the disk {name[:SHOWN]}, which is not there", id="vmx-disk-missing", hint=hint
    )


def tell_moved(vmx: str, name: str, beside: str, run: Run) -> None:
    run.warn(
        f"{vmx} names {name[:SHOWN]}, a path of another host: {beside} is taken for it",
        id="vmx-disk-moved",
        hint="if that is another disk, put the right one there",
    )


def _read_text(path: Path) -> bytes:
    return read_metadata_file(path, MAX_BYTES, hint="give the .vmx file of the VM")


def _resolved(path: Path) -> Path:
    """The file itself, where it is a link: the disks are beside that."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path  # reading it tells what is wrong
