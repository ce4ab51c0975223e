"""Storages of the target: which take disks, which take images that are sent, and their space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from v2v.errors import TargetError
from v2v.outputs._proxmox.api import Api
from v2v.outputs._proxmox.names import listed
from v2v.texts import clean, size_text

IMPORT, IMAGES = "import", "images"  # content types
FILES = ("dir", "btrfs", "nfs", "cifs", "cephfs")  # storages that may have `import`
THICK = ("lvm",)  # storages that take a disk's whole size at once
FIXED = ("iscsi", "iscsidirect")  # storages that have `images`, and take none that are new
ESXI = "esxi"  # a storage that has `import`, and takes none
OTHER_STORAGE = "choose another with -os or --storage"


@dataclass(frozen=True, slots=True)
class Storage:
    storage: str
    type: str = ""
    content: str = ""  # separated by commas
    enabled: bool = True
    active: bool = False
    avail: int | None = None  # bytes

    def holds(self, content: str) -> bool:
        return content in self.content.split(",")

    @property
    def takes_disks(self) -> bool:
        return self.holds(IMAGES) and self.type not in (*FIXED, ESXI)

    @property
    def takes_imports(self) -> bool:
        return self.holds(IMPORT) and self.type != ESXI


def storages_of(api: Api, node: str) -> dict[str, Storage]:
    """All that the user may see, also those that cannot be used on this node."""
    found = api.get(f"nodes/{node}/storage", list[Storage], "list the storages")
    return {one.storage: one for one in found}


def check_target(known: Mapping[str, Storage], name: str, node: str) -> None:
    """Whether a VM's disks can be there."""
    storage = _usable(known, name, node, OTHER_STORAGE)
    if not storage.takes_disks:
        able = [one.storage for one in known.values() if one.takes_disks]
        raise TargetError(
            f"storage {name} ({clean(storage.type)}) takes no new disks of VMs; its content is: "
            f"{clean(storage.content)}",
            id="target-storage",
            hint=f"{OTHER_STORAGE}: {listed(able)}",
        )


def import_storage(known: Mapping[str, Storage], wanted: str | None, target: str, node: str) -> str:
    """Where images are sent to: what is asked for, the target itself, or that with most space."""
    if wanted is not None:
        storage = _usable(known, wanted, node, "choose another with -oo import-storage")
        if not storage.takes_imports:
            raise _no_import(f"storage {wanted} takes no images that are sent", known, wanted)
        return wanted
    able = [one for one in known.values() if one.enabled and one.active and one.takes_imports]
    if not able:
        raise _no_import("no storage takes images that are sent", known, target)
    return max(able, key=lambda one: (one.storage == target, one.avail or 0)).storage


def _no_import(what: str, known: Mapping[str, Storage], wanted: str) -> TargetError:
    return TargetError(
        f"{what}: that needs a storage of files whose content includes `{IMPORT}`",
        id="target-storage",
        hint=_how_to_import(known, wanted) + "; it takes Proxmox VE 8.4 or later",
    )


def _how_to_import(known: Mapping[str, Storage], wanted: str) -> str:
    """The command keeps the content that the storage has: what is not named would be gone."""
    files = [one for one in known.values() if one.type in FILES and one.active]
    if not files:
        return "add one: Datacenter > Storage > Add > Directory, Content: Import"
    best = max(files, key=lambda one: one.storage == wanted)
    name, content = clean(best.storage), clean(f"{best.content},{IMPORT}")
    return (
        f"on a node: pvesm set {name} --content {content} (or Datacenter > Storage > {name} > "
        "Edit > Content: Import)"
    )


def _usable(known: Mapping[str, Storage], name: str, node: str, instead: str) -> Storage:
    storage = known.get(name)
    if storage is None:
        raise TargetError(
            f"there is no storage {name} on {node}, or the user may not see it",
            id="target-storage",
            hint=f"{instead}: {listed(known)}",
        )
    if not storage.enabled or not storage.active:
        why = "does not answer" if storage.enabled else "is disabled, or not for this node"
        raise TargetError(
            f"storage {name} on {node} {why}",
            id="target-storage",
            hint=f"see Datacenter > Storage, and pvesm status on the node; or {instead}",
        )
    return storage


def check_space(known: Mapping[str, Storage], needs: Sequence[tuple[str, int, int]]) -> None:
    """`needs`: storage, size and bytes of data of each thing that goes there."""
    for name in dict.fromkeys(name for name, _, _ in needs):
        storage = known.get(name)
        if storage is None or storage.avail is None:
            continue
        thick = storage.type in THICK
        needed = sum(size if thick else used for one, size, used in needs if one == name)
        if needed > storage.avail:
            raise TargetError(
                f"storage {name}: {size_text(needed)} are needed, "
                f"{size_text(storage.avail)} are free",
                id="target-space",
                hint=f"make room, or {OTHER_STORAGE} and -oo import-storage",
            )
