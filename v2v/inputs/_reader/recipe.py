"""What the reader's process is to open: a value, which it gets as a file of JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vsphere.place import VspherePlace


@dataclass(frozen=True, slots=True)
class Recipe:
    """One disk. `ssh` or `folder` says where its files are; neither of them: on this host."""

    path: str  # in the store: of the descriptor, or of an image that holds its own
    roots: tuple[str, ...]  # folders in the store that it may refer to files of; its own always
    ssh: SshPlace | None = None
    folder: VspherePlace | None = None  # through HTTPS, https://SERVER/folder/...
    through_vcenter: bool = False  # `folder`: requests are to be small
    datastores: dict[str, str] = field(default_factory=dict)  # `folder`: names, by UUIDs in paths
