"""Refusals: raised when converting, collected when inspecting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from v2v.errors import GuestError
from v2v.types import Finding


@dataclass
class Problems:
    """Where the parts of conversion say what is wrong. `collect` makes refusals findings."""

    collect: bool = False
    findings: list[Finding] = field(default_factory=list)

    def refuse(self, error: GuestError) -> None:
        if not self.collect:
            raise error
        self.add(Finding("blocker", error.id, error.message, error.hint))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Errors raised in the block are refusals like others; the block ends at the first."""
        try:
            yield
        except GuestError as exc:
            self.refuse(exc)

    def warn(self, text: str, *, id: str, hint: str | None = None) -> None:
        self.add(Finding("warning", id, text, hint))

    def add(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    @property
    def blocked(self) -> bool:
        return any(finding.severity == "blocker" for finding in self.findings)
