"""`v2v copy`: one disk image to a file, a block device or an NBD server."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from v2v.cli import asked, copy_options, job_options, work
from v2v.cli.parser import Parser
from v2v.cli.summary import json_text
from v2v.errors import UsageError
from v2v.texts import clean, size_text, time_text

if TYPE_CHECKING:
    from v2v.image_copy import CopiedImage

DESCRIPTION = """\
Copy one disk, as fast as its source and target allow, and nothing else: what nbdcopy, dd or
qemu-img convert would be used for. Holes stay holes. SOURCE is an image file of any format, a block
device, a compressed raw image, or an nbd://, http:// or https:// address. TARGET is a file, a block
device, an nbd:// address, or null:."""

EPILOG = """\
examples:
  an image of VMware, as a raw file:
    v2v copy disk.vmdk /srv/disk.raw
  from a web server, as compressed qcow2, read back and compared:
    v2v copy https://example.com/disk.vmdk /srv/disk.qcow2 -of qcow2 --compressed --verify
  onto a logical volume; what is on it is only overwritten with --force:
    v2v copy disk.qcow2 /dev/vg0/web
  to another host, where this serves the target:
      qemu-nbd --persistent --shared=0 --fork -f raw /dev/vg0/web
    v2v copy /dev/vg0/web nbd://host.example.com/
  it was interrupted; go on:
    v2v copy --resume /dev/vg0/web nbd://host.example.com/
  how fast can it be read?
    v2v copy disk.vmdk null:

Nothing that exists is overwritten without --force. What was copied when something fails is kept,
and --resume goes on with it. docs/copy.md tells more."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "copy",
        help="copy one disk image, device or NBD export",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v copy SOURCE TARGET [-of qcow2] [--force] [--resume] [options]",
    )
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a file, block device or address"
    )
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="a file, block device, NBD address, or null:"
    )
    job_options.add_image(parser)
    _add_target(parser)
    copy_options.add(parser)
    job_options.add_messages(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object on stdout"
    )
    return parser


def _add_target(parser: Parser) -> None:
    group = parser.add_argument_group("target")
    job_options.once(
        group, "-of", "FORMAT", "of a new file: raw (default) or qcow2", alias="--format"
    )
    job_options.once(group, "-oa", "ALLOCATION", "sparse (default) or preallocated")
    group.add_argument(
        "--compressed", action="store_true", default=None, help="compress a qcow2 file"
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="replace a file that exists; overwrite a device or export that holds something; begin "
        "an unfinished copy again",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with an unfinished copy of SOURCE to TARGET, if there is one",
    )


def run(args: argparse.Namespace) -> int:
    from v2v import image_copy

    given = vars(args)
    if not args.source or not args.target:  # or an empty word, of a variable that is not set
        missing = {"SOURCE": not args.source, "TARGET": not args.target}
        names = [name for name, lacks in missing.items() if lacks]
        what = f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'}"
        raise UsageError(
            f"v2v copy: {what} missing",
            id="usage",
            hint="for example: v2v copy disk.vmdk disk.raw",
        )
    copied, _ = work.perform(
        args,
        lambda emit, cancel: image_copy.copy_image(
            args.source,
            args.target,
            format=given["-of"],
            compressed=args.compressed,
            allocation=given["-oa"],
            input_options=asked.image_words(args),
            options=copy_options.to_options(args),
            force=args.force,
            resume=args.resume,
            jobs=job_options.jobs_folder(args),
            emit=emit,
            cancel=cancel,
        ),
        stream=sys.stderr,  # stdout holds the result alone
    )
    if args.json:
        print(json_text(plain(copied)))
    elif not args.quiet:
        print(text(copied))
    return 0


def plain(copied: CopiedImage) -> dict[str, Any]:
    """The result for programs: one flat object."""
    import msgspec

    values: dict[str, Any] = msgspec.to_builtins(copied)
    copy = values.pop("copy")
    copy.pop("disk")
    return {**values, **copy}


def text(copied: CopiedImage) -> str:
    """The result for people."""
    copy = copied.copy
    data = f"{size_text(copy.data)} of data"
    if copy.found_zero:
        data += f" ({size_text(copy.found_zero)} of it zeroes)"
    elif copy.by_kernel:
        data += f" ({size_text(copy.by_kernel)} of it moved or shared by the kernel)"
    rows = [
        ("copied", f"{size_text(copy.size)}: {data}, {size_text(copy.zero)} of holes"),
        ("target", f"{clean(copied.target)} ({copied.format})"),
        ("time", f"{time_text(copy.seconds)}, {size_text(copied.rate)}/s"),
    ]
    if copy.resumed:
        rows.append(("resumed", f"{size_text(copy.resumed)} had been copied before"))
    if copy.retries:
        rows.append(("retries", str(copy.retries)))
    if copy.verified:
        part = "all" if copy.verified >= 1 else f"{copy.verified:.3g} of it"
        rows.append(("verified", f"{part} was read back, and is right"))
    if copy.checksum:
        rows.append(("checksum", copy.checksum))
    rows += [("note", clean(note)) for note in copy.notes]
    return "\n".join(f"{label:<9} {value}" for label, value in rows)
