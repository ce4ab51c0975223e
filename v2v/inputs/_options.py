"""Options that several inputs have, and how images may be read by them."""

from __future__ import annotations

from typing import Any

from v2v.inputs._images import Access
from v2v.options import option


def allow_backing(what: str = "the images") -> Any:
    return option(
        "-io allow-backing",
        f"files or folders elsewhere that {what} may refer to, separated by colons",
        default=(),
        metavar="PATH[:PATH...]",
    )


def password_file(what: str) -> Any:
    return option("-ip", f"file with the password {what}", default=None)


def known_hosts(ssh: str) -> Any:
    return option(
        "-io ssh-known-hosts",
        f"file with the keys of the hosts that {ssh} may connect to; without it ~/.ssh/known_hosts",
        default=None,
    )


def identity(ssh: str) -> Any:
    return option(
        "-io ssh-identity",
        f"file with the key that {ssh} logs in with; without it those of the agent and of ~/.ssh",
        default=None,
    )


def access(options: object, *, strict: bool = False) -> Access:
    """What a mode's options say of it; those that it does not have are as if not given."""
    return Access(
        format=getattr(options, "format", None),
        allowed=getattr(options, "allow_backing", ()),
        password_file=getattr(options, "password_file", None),
        known_hosts=getattr(options, "known_hosts", None),
        identity=getattr(options, "identity", None),
        strict=strict,
    )
