"""A guest whose filesystems are mounted in the appliance, as the conversion steps see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from conversion.files import read_capped
from v2v.errors import GuestError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import Finding, Firmware, GuestOS, MiB, Nic, Source

MAX_TEXT = 8 * MiB  # no configuration file of a sane guest is larger


@dataclass
class Guest:
    """`g` is a launched guestfs handle with the guest's root mounted at /.

    Every path is a guest path; guestfs resolves it inside the guest's own tree, symlinks included.
    Everything read from it is hostile.
    """

    g: Any  # guestfs.GuestFS
    source: Source
    options: ConversionOptions
    run: Run
    os: GuestOS
    root: str  # device of the root filesystem, as the appliance names it
    mounts: dict[str, str]  # mountpoint: device
    firmware: Firmware
    boot_disk: int
    packages: dict[str, str]  # installed packages: version
    nics: tuple[Nic, ...]  # of the target, with MAC addresses
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # what a step found out, for later ones

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes | None:
        """The content of a regular file, or None if there is none."""
        content = read_capped(self.g, path, limit + 1)
        if content is not None and len(content) > limit:
            raise GuestError(
                f"{path} in the guest is larger than {limit} bytes", id="guest-file-too-large"
            )
        return content

    def read_text(self, path: str) -> str | None:
        content = self.read(path)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def glob(self, pattern: str) -> list[str]:
        try:
            return sorted(self.g.glob_expand(pattern, directoryslash=False))
        except UnicodeDecodeError:
            self.warn(
                f"{pattern} in the guest matches a name that is not UTF-8; these files were left",
                id="guest-file-name",
                hint="rename it in the source VM if it matters, then convert again",
            )
            return []

    def exists(self, path: str) -> bool:
        return bool(self.g.exists(path))

    def command(self, argv: Sequence[str]) -> str:
        """Run a program of the guest inside the appliance, never on the host."""
        try:
            output: str = self.g.command(list(argv))
        except UnicodeDecodeError:  # it ended well, only its words cannot be read
            return ""
        return output

    def warn(self, text: str, *, id: str, hint: str | None = None) -> None:
        finding = Finding("warning", id, text, hint)
        if finding not in self.findings:
            self.findings.append(finding)
