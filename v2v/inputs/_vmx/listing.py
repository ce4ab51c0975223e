"""Which VMs a host has: one of a name, or all of them with what could be in the way."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Sequence

from v2v.errors import SourceError
from v2v.events import Event, Warned
from v2v.image.vmdk import read_descriptor_file, read_sparse
from v2v.image.vmdk_sparse import MAX_DESCRIPTOR
from v2v.inputs._vmx import read_vm
from v2v.inputs._vmx.datastores import Found, each
from v2v.inputs._vmx.drives import Drive, read_disks
from v2v.inputs._vmx.places import RemotePlace
from v2v.inputs._vmx.remote import RemoteFolder
from v2v.inputs._vmx.snapshots import Listed, list_snapshots
from v2v.inputs._vmx.state import check_shut_down, sign_of_running
from v2v.inputs._vmx.text import Vmx, parse_vmx
from v2v.options import did_you_mean
from v2v.run import Run
from v2v.texts import clean, clean_name
from v2v.types import Finding, GuestSummary
from v2v.vmdk.store import File, ListingStore

BLOCKER, WARNING, INFO = "blocker", "warning", "info"
SHOWN = 10  # VMs in a message
_BRACKETS = re.compile(r"\[(.+?)\] ?(.+)")


# One by its name ----------------------------------------------------------------------------------


def path_of(word: str, volumes: str) -> str | None:
    """The path that a word is, rather than a name: /vmfs/volumes/DS/..., or "[DS] FOLDER/FILE"."""
    if word.startswith("/"):
        return word
    match = _BRACKETS.fullmatch(word)
    return posixpath.join(volumes, match[1], match[2]) if match else None


def find_by_name(
    store: ListingStore, place: RemotePlace, found: Sequence[Found], word: str, run: Run
) -> Found:
    """The VM that calls itself so; or whose file, or folder, is called so. SourceError."""
    quiet = run.part(emit=lambda event: None)  # what is wrong with other VMs does not matter
    titles = each(store, lambda one: _title(store, place, one, quiet), found, run)
    wanted = _plain(word)
    kinds = (titles, [one.stem for one in found], [posixpath.basename(o.folder) for o in found])
    for names in kinds:
        hits = [
            one for one, name in zip(found, names, strict=True) if name and _plain(name) == wanted
        ]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise _ambiguous(word, hits)
    raise _unknown(word, place, [name for name in titles if name])


def _title(store: ListingStore, place: RemotePlace, found: Found, run: Run) -> str:
    """Empty if its file cannot be read."""
    folder = RemoteFolder(store, place, found.path, known=found.entries)
    try:
        vmx = parse_vmx(folder.read_vmx(), folder.vmx, run)
    except SourceError as exc:
        _raise_if_of_host(exc)
        return ""
    return clean_name(vmx.text("displayName"))


def _raise_if_of_host(exc: SourceError) -> None:
    """A connection that is lost says nothing of a VM."""
    if exc.id.startswith("ssh-"):
        raise exc


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _ambiguous(word: str, hits: Sequence[Found]) -> SourceError:
    paths = clean(", ".join(one.path for one in hits[:SHOWN]))
    return SourceError(
        f"{len(hits)} VMs are called {word!r}: {paths}",
        id="vmx-vm-ambiguous",
        hint=f"give the path of one instead of the name: '{clean(hits[0].path)}'",
    )


def _unknown(word: str, place: RemotePlace, names: Sequence[str]) -> SourceError:
    shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return SourceError(
        f"{place.ssh.shown} has no VM {word!r}",
        id="vmx-vm-unknown",
        hint=did_you_mean(word, names)
        or (f"it has {shown}" if names else "no datastore there holds a .vmx file"),
    )


# All of them --------------------------------------------------------------------------------------


def summaries(
    store: ListingStore, place: RemotePlace, found: Sequence[Found], run: Run
) -> list[GuestSummary]:
    return each(store, lambda one: _summary(store, place, one, run), found, run)


def _summary(store: ListingStore, place: RemotePlace, found: Found, run: Run) -> GuestSummary:
    findings: list[Finding] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            text = event.text.removeprefix(f"{folder.vmx}: ")
            findings.append(Finding(WARNING, event.id, text, event.hint))

    quiet = run.part(emit=hear)
    folder = RemoteFolder(store, place, found.path, known=found.entries)
    try:
        vmx = parse_vmx(folder.read_vmx(), folder.vmx, quiet)
        source = read_vm(vmx, folder.stem, quiet)
        listed = list_snapshots(folder, quiet, needed=False)
        drives, power = read_disks(vmx, quiet), _power(vmx, folder)
    except SourceError as exc:
        _raise_if_of_host(exc)
        findings.append(_finding(BLOCKER, exc, folder))
        return GuestSummary(
            name=clean_name(folder.stem),
            id=found.path,
            where=clean(found.folder),
            findings=tuple(findings),
        )
    provisioned = _provisioned(store, folder, drives, findings, quiet)
    findings += _state_findings(vmx, folder, drives, listed, quiet)
    return GuestSummary(
        name=source.name,
        id=found.path,
        where=clean(found.folder),
        power=power,
        disks=len(drives),
        provisioned=provisioned,
        used=_used(folder, drives),
        firmware=source.firmware,
        cbt=vmx.flag("ctkEnabled") is True,
        snapshots=tuple(one.name for one in listed.snapshots),
        os=source.osinfo,
        memory=source.memory,
        vcpus=source.vcpus,
        findings=tuple(findings),
    )


def _finding(severity: str, exc: SourceError, folder: RemoteFolder) -> Finding:
    return Finding(severity, exc.id, exc.message.removeprefix(f"{folder.vmx}: "), exc.hint)


def _power(vmx: Vmx, folder: RemoteFolder) -> str:
    if sign_of_running(folder, folder.entries()):
        return "on"
    return "suspended" if vmx.text("checkpoint.vmState") else "off"


def _provisioned(
    store: ListingStore,
    folder: RemoteFolder,
    drives: Sequence[Drive],
    findings: list[Finding],
    run: Run,
) -> int | None:
    """What the descriptors tell; what cannot be read is a finding."""
    sizes: list[int] = []
    for drive in drives:
        try:
            sizes.append(_size(store.open(folder.find(drive.file, run))))
        except SourceError as exc:
            _raise_if_of_host(exc)
            findings.append(_finding(BLOCKER, exc, folder))
    return sum(sizes) if len(sizes) == len(drives) else None


def _size(file: File) -> int:
    """Bytes, of a text that names the data or of a file that holds its own."""
    header = read_sparse if file.size > MAX_DESCRIPTOR else read_descriptor_file
    return header(file, for_qemu=False).size


def _used(folder: RemoteFolder, drives: Sequence[Drive]) -> int | None:
    """What the disks take up: all files of disks in the VM's own folder."""
    if any("/" in drive.file for drive in drives):
        return None
    sizes = [one.used for one in folder.files.values() if one.name.lower().endswith(".vmdk")]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _state_findings(
    vmx: Vmx, folder: RemoteFolder, drives: Sequence[Drive], listed: Listed, run: Run
) -> list[Finding]:
    found = []
    try:
        check_shut_down(vmx, folder, listed, run, frozen=False, written=(), read=())
    except SourceError as exc:  # it is none once the VM is shut down
        found.append(_finding(WARNING, exc, folder))
    independent = [drive.node for drive in drives if drive.independent]
    if independent:
        text = f"no snapshot keeps the disks at {', '.join(independent)}: they are independent"
        found.append(Finding(WARNING, "disk-independent", text, "shut the VM down to read them"))
    if listed.snapshots:
        text = f"the VM has snapshots: {', '.join(one.name for one in listed.snapshots)}"
        found.append(Finding(INFO, "snapshots", text, "-io snapshot=NAME reads one of them"))
    return found
