"""An export storage domain of oVirt: how it is known from other folders, and its parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from v2v.errors import TargetError
from v2v.texts import clean

METADATA = Path("dom_md", "metadata")
MAX_METADATA = 64 * 1024  # bytes; VDSM's own are some 500
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BACKUP = "Backup"  # VDSM's class of domains that VMs are exported to and imported from


@dataclass(frozen=True, slots=True)
class ExportDomain:
    root: Path

    @property
    def uuid(self) -> str:
        return self.root.name

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def vms(self) -> Path:
        return self.root / "master" / "vms"


def find_export_domain(folder: Path, *, shown: str) -> ExportDomain:
    """The one in `folder`, or the one that `folder` is. `shown`: what the user called it."""
    classes = {root: _class(root) for root in _candidates(folder, shown)}
    found = [root for root, name in classes.items() if name == BACKUP]
    if len(found) > 1:
        raise TargetError(
            f"-os {shown}: {len(found)} export domains are there: {_listed(found)}",
            id="ovirt-domain-ambiguous",
            hint="name one of them: -os FOLDER/UUID",
        )
    if not found:
        raise _none(classes, shown)
    domain = ExportDomain(found[0])
    for part in (domain.images, domain.vms):
        if not part.is_dir():
            raise TargetError(
                f"-os {shown}: {part} is missing",
                id="ovirt-domain-unknown",
                hint="attach the export domain to a data center once: oVirt completes it then",
            )
    return domain


def _candidates(folder: Path, shown: str) -> list[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as exc:
        raise TargetError(
            f"-os {shown}: cannot be read: {exc.strerror}",
            id="target-folder",
            hint="choose another with -os",
        ) from exc
    roots = [path for path in (folder, *inside) if UUID.fullmatch(path.name)]
    return [path for path in roots if (path / METADATA).is_file()]


def _class(root: Path) -> str:
    """Class of the domain, from CLASS=... in its metadata."""
    try:
        with (root / METADATA).open("rb") as file:
            text = file.read(MAX_METADATA).decode(errors="replace")
    except OSError as exc:
        raise TargetError(
            f"{root / METADATA}: cannot be read: {exc.strerror}",
            id="target-folder",
            hint="run v2v as root, or as the user vdsm",
        ) from exc
    found = re.search(r"^CLASS=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _none(classes: dict[Path, str], shown: str) -> TargetError:
    if not classes:
        return TargetError(
            f"-os {shown}: there is no storage domain of oVirt",
            id="ovirt-domain-unknown",
            hint="name the folder that is mounted, which holds a folder named by a UUID",
        )
    kinds = ", ".join(f"{root.name} of class {clean(name)}" for root, name in classes.items())
    return TargetError(
        f"-os {shown}: no export domain, but {kinds}",
        id="ovirt-domain-class",
        hint="oVirt alone may write to its data domains: use -o rhv-upload, or an export domain",
    )


def _listed(roots: list[Path]) -> str:
    return ", ".join(root.name for root in roots)
