"""`v2v open`: the disks of a VM, wherever it is, for other programs; nothing is converted."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from v2v import process
from v2v.cancel import Cancel
from v2v.cli import asked, job_options, module_help, run_command, unsupported, work
from v2v.cli.parser import Parser
from v2v.errors import Cancelled, HostError, UsageError
from v2v.events import Emit
from v2v.job import Job, ModuleChoice
from v2v.texts import clean, size_text

if TYPE_CHECKING:
    from v2v.opening import OpenedGuest

LOOK_SECONDS = 1.0  # how often to see whether the servers are there

DESCRIPTION = """\
Open the disks of a VM where it is, without converting or copying it, for programs that read NBD or
files: nbdinfo, guestfish, guestmount, QEMU. They stay open until Ctrl-C, or until the command of
--run ends; then nothing is left. The source is never written."""

EPILOG = """\
examples:
  what is in it? the second terminal uses what the first one prints:
    v2v open -i disk vm.vmdk
  one command, with @@ for `-a URI` of each disk, as with virt-v2v-open:
    v2v open -i disk vm.vmdk --run 'guestfish --ro --format=raw @@ -i ls /'
  raw files, for programs that know of nothing else:
    v2v open -i disk vm.vmdk --fuse /mnt/vm
  start it; what it writes is thrown away:
    v2v open -i disk vm.vmdk --writable --run \\
      'qemu-system-x86_64 -m 2G -drive file={uri},format=raw'
  for another host, which has the key too:
    v2v open -i disk vm.vmdk --tcp 0.0.0.0:10809 --tls-psk-file keys.psk

The exit code is that of the command of --run, and 0 after Ctrl-C without --run. docs/open.md tells
more."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "open",
        help="open a VM's disks for other programs",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v open [-i MODE] GUEST... [--run COMMAND] [options]",
        unsupported=unsupported.OPTIONS,
    )
    job_options.add_guests(parser)
    job_options.add_input(parser)
    _add_exposure(parser)
    _add_actions(parser)
    job_options.add_messages(parser)
    return parser


def _add_exposure(parser: Parser) -> None:
    group = parser.add_argument_group("how the disks are shown")
    group.add_argument(
        "--socket-dir",
        metavar="DIR",
        help="folder of the Unix sockets sda, sdb, ... (default: a new one in /tmp)",
    )
    group.add_argument(
        "--tcp",
        metavar="[HOST:]PORT",
        help="NBD on TCP instead, at 127.0.0.1 or HOST; a second disk is on the next port",
    )
    group.add_argument(
        "--tls-psk-file", metavar="FILE", help="TLS, for clients that have a key of this file"
    )
    group.add_argument(
        "--tls-certificates",
        metavar="DIR",
        help="TLS with the certificate in DIR, for clients with one of the same authority",
    )
    group.add_argument(
        "--insecure", action="store_true", help="allow --tcp for other hosts without TLS"
    )
    group.add_argument(
        "--fuse",
        metavar="DIR",
        help="raw files NAME-sda.img, NAME-sdb.img, ... in DIR, which is empty or is made",
    )
    group.add_argument(
        "--writable",
        action="store_true",
        help="let programs write; what they write is thrown away at the end",
    )


def _add_actions(parser: Parser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument(
        "--run",
        dest="command",
        metavar="COMMAND",
        help="run COMMAND in sh, and end with it. In it @@ is `-a URI` of every disk, {uris} their "
        "URIs, {uri} or {uri0} the first, {files} and {file0} those of --fuse, {name} the guest",
    )
    group.add_argument("--json", action="store_true", help="print what is open as a JSON object")


def run(args: argparse.Namespace) -> int:
    from v2v import opening

    if "?" in args.io:
        print(module_help.asked_help(args))
        return 0
    _check(args)
    how = opening.exposure(
        writable=args.writable,
        socket_dir=args.socket_dir,
        tcp=args.tcp,
        tls_certificates=args.tls_certificates,
        tls_psk_file=args.tls_psk_file,
        insecure=args.insecure,
        fuse=args.fuse,
    )
    command = run_command.Command()
    code, _ = work.perform(
        args,
        lambda emit, cancel: _open(args, how, command, emit, cancel),
        stream=sys.stderr,  # stdout is for what is open, or for the command
        take=command.take,
    )
    return code


def _check(args: argparse.Namespace) -> None:
    if args.command is not None and args.json:
        raise UsageError(
            "--run and --json exclude each other: stdout is the command's",
            id="option-conflict",
            hint="the command finds what is open in its environment: V2V_URI0, V2V_FILE0, ...",
        )
    if args.command is not None:
        run_command.check(args.command, files=args.fuse is not None)
    if args.progress in ("auto", "rich"):
        args.progress = "plain"  # what is redrawn would run into the command's own lines


def _open(
    args: argparse.Namespace, how: Any, command: run_command.Command, emit: Emit, cancel: Cancel
) -> int:
    """In the thread that keeps the servers alive: open, then wait."""
    from v2v import api
    from v2v.outputs._files import safe_name

    job = Job(
        input=asked.input_choice(args),
        output=ModuleChoice("null"),
        guests=tuple(args.guests),
    )
    jobs = job_options.jobs_folder(args)
    with api.open_guest(job, how, jobs=jobs, emit=emit, cancel=cancel) as opened:
        if args.command is not None:
            words = run_command.substituted(args.command, len(opened.disks))
            values = run_command.variables(opened, safe_name(opened.name))
            return command.run(words, values, cancel)
        if args.json:
            print(json.dumps(plain(opened)), flush=True)
        elif not args.quiet:
            print(text(opened), flush=True)
        with suppress(Cancelled):  # that is how it ends
            while True:
                cancel.wait(LOOK_SECONDS)
                _check_servers()
    return 0


def _check_servers() -> None:
    if name := process.ended_server():
        raise HostError(
            f"{name}, which showed the disks, has ended",
            id="open-server-ended",
            hint="somebody killed it, or memory ran out, or it is a bug of it; open the VM again",
        )


def plain(opened: OpenedGuest) -> dict[str, Any]:
    """What is open, for programs."""
    disks = [
        {
            "name": disk.name,
            "size": disk.size,
            "uri": disk.uri,
            "socket": str(disk.socket) if disk.socket else None,
            "file": str(disk.file) if disk.file else None,
        }
        for disk in opened.disks
    ]
    return {"name": opened.name, "writable": opened.writable, "disks": disks}


def text(opened: OpenedGuest) -> str:
    """What is open, for people, and what to type."""
    count = len(opened.disks)
    how = "writable, until the end" if opened.writable else "read-only"
    lines = [f"{clean(opened.name)}: {count} disk{'s' if count > 1 else ''}, {how}"]
    for disk in opened.disks:
        lines.append(f"  {disk.name:<4} {size_text(disk.size):>8}  {clean(disk.uri)}")
        if disk.file:
            lines.append(f"{' ' * 17}{clean(str(disk.file))}")
    lines.append("for example:")
    lines += [f"  {clean(one)}" for one in _commands(opened)]
    return "\n".join([*lines, "Ctrl-C closes it."])


def _commands(opened: OpenedGuest) -> list[str]:
    uris = [disk.uri for disk in opened.disks]
    commands = [shlex.join(["nbdinfo", uris[0]])]
    if opened.disks[0].file:
        commands.append(shlex.join(["fdisk", "-l", str(opened.disks[0].file)]))
    if uris[0].startswith("nbds:"):
        return commands  # libguestfs has no option for it, QEMU needs several
    added = [word for disk in opened.disks for word in ("-a", disk.libguestfs_uri)]
    mode = [] if opened.writable else ["--ro"]
    commands.append(shlex.join(["guestfish", *mode, "--format=raw", *added, "-i"]))
    drives = [f"file={uri.replace(',', ',,')},format=raw" for uri in uris]
    added = [word for drive in drives for word in ("-drive", drive)]
    mode = [] if opened.writable else ["-snapshot"]
    machine = ["-accel", "kvm", "-accel", "tcg", "-m", "2G"]
    return [*commands, shlex.join(["qemu-system-x86_64", *machine, *mode, *added])]
