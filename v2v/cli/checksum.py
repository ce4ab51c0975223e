"""`v2v checksum`: the checksum of the disk in an image, whatever the image's format."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from v2v.cli import asked, copy_options, job_options, work
from v2v.cli.parser import Parser
from v2v.cli.summary import json_text
from v2v.errors import UsageError, V2VError
from v2v.texts import clean

DIFFERENT = 7  # the exit code of CopyError
LINE = re.compile(r"([0-9a-f]{64})  (.+)")

DESCRIPTION = """\
Print the checksum of the disk in each image: of the bytes that a guest would see, so that a VMDK
and its copy as qcow2, as a raw file, on a block device or behind an NBD server all have the same.
Holes are not read. docs/checksum.md tells how it is made, and how to check it without v2v."""

EPILOG = """\
examples:
  v2v checksum disk.vmdk disk.qcow2 /dev/vg0/web nbd://host.example.com/
  v2v checksum *.qcow2 > CHECKSUMS; v2v checksum --check CHECKSUMS

With --check the exit code is 0 if all are right, 7 if one differs, 4 if one cannot be read."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "checksum",
        help="print or check the checksums of disk images",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v checksum IMAGE... [options]\n       v2v checksum --check FILE [options]",
    )
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="anything that `v2v copy` takes as its source"
    )
    parser.add_argument(
        "--check", metavar="FILE", help="check the images in a list that v2v checksum has printed"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    job_options.add_image(parser)
    copy_options.add(parser, writes=False)
    job_options.add_messages(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if bool(args.images) == bool(args.check):
        raise UsageError(
            "v2v checksum: name images, or a list with --check",
            id="usage",
            hint="for example: v2v checksum disk.vmdk",
        )
    return _check(args) if args.check else _print(args)


def _print(args: argparse.Namespace) -> int:
    found = []
    for image in args.images:
        found.append({"checksum": _checksum(args, image), "image": image})
        if not args.json:
            print(f"{found[-1]['checksum']}  {clean(image)}", flush=True)
    if args.json:
        print(json_text(found))
    return 0


def _check(args: argparse.Namespace) -> int:
    found = [_checked(args, *entry) for entry in list(_entries(args.check))]
    if args.json:
        print(json_text(found))
    unreadable = [one["exit_code"] for one in found if one["status"] == "unreadable"]
    if any(one["status"] == "different" for one in found):
        return DIFFERENT
    return unreadable[0] if unreadable else 0


def _checked(args: argparse.Namespace, expected: str, image: str) -> dict[str, Any]:
    """One line of a list, compared; told at once."""
    entry: dict[str, Any] = {"image": image, "expected": expected}
    try:
        entry["checksum"] = _checksum(args, image)
    except V2VError as exc:
        if exc.id == "cancelled":
            raise
        entry |= {"status": "unreadable", "error": exc.id, "message": exc.message}
        entry["exit_code"] = exc.exit_code
        word = f"cannot be read: {exc.message} ({exc.id})"
    else:
        same = entry["checksum"] == expected
        entry["status"] = "ok" if same else "different"
        word = "OK" if same else "DIFFERENT"
    if not args.json and not (args.quiet and entry["status"] == "ok"):
        print(f"{clean(image)}: {clean(word)}", flush=True)
    return entry


def _checksum(args: argparse.Namespace, image: str) -> str:
    from v2v import image_copy

    value, _ = work.perform(
        args,
        lambda emit, cancel: image_copy.checksum(
            image,
            input_options=asked.image_words(args),
            options=copy_options.to_options(args),
            jobs=job_options.jobs_folder(args),
            emit=emit,
            cancel=cancel,
        ),
        stream=sys.stderr,  # stdout holds the checksums alone
    )
    return value


def _entries(name: str) -> Iterator[tuple[str, str]]:
    """The lines of a list: checksum and image."""
    try:
        lines = (sys.stdin.read() if name == "-" else Path(name).read_text()).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        cause = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise UsageError(
            f"--check {name}: cannot be read: {cause}", id="checksum-list", hint="is it the list?"
        ) from exc
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise UsageError(
                f"--check {name}: line {number} is not CHECKSUM, two spaces, IMAGE",
                id="checksum-list",
                hint="`v2v checksum IMAGE... > FILE` makes such a list",
            )
        yield match[1], match[2]
    if not lines:
        raise UsageError(
            f"--check {name}: the list is empty", id="checksum-list", hint="is it the list?"
        )
