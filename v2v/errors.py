"""Every error a user can meet, with a stable id and an exit code.

    V2VError
    ├── UsageError      2    an option, a mode or a manifest is wrong
    ├── HostError       3    this host lacks something: a tool, space, a working appliance
    ├── SourceError     4    the source cannot be read
    ├── GuestError      5    the guest cannot be converted
    ├── TargetError     6    the target refuses
    ├── CopyError       7    data could not be moved
    ├── BootCheckError  8    the result did not boot; it is kept
    ├── JobError        9    a job cannot be resumed, or is running already
    └── Cancelled     130

`id` never changes once released; docs/errors.md lists them all. The message says what and where,
the hint what next. Only `v2v.cli` prints errors and exits.
"""

from __future__ import annotations

from typing import ClassVar


class V2VError(Exception):
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, id: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.id = id
        self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])


class UsageError(V2VError):
    exit_code = 2


class HostError(V2VError):
    exit_code = 3


class SourceError(V2VError):
    exit_code = 4


class GuestError(V2VError):
    exit_code = 5


class TargetError(V2VError):
    exit_code = 6


class CopyError(V2VError):
    exit_code = 7


class BootCheckError(V2VError):
    exit_code = 8


class JobError(V2VError):
    exit_code = 9


class Cancelled(V2VError):
    exit_code = 130

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message, id="cancelled")
