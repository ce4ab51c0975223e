"""`v2v convert`: one VM, from its source to its target."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from v2v.cli import (
    asked,
    copy_options,
    job_options,
    keys,
    machine,
    module_help,
    summary,
    unsupported,
    work,
)
from v2v.cli.parser import Parser, seconds
from v2v.job import Job
from v2v.types import BlockBus

BLOCK_DRIVERS = (BlockBus.VIRTIO_BLK.value, BlockBus.VIRTIO_SCSI.value)
BOOT_CHECK_SECONDS = 300.0  # a Debian guest reaches its login prompt in 30-60 s without KVM

DESCRIPTION = """\
Convert one VM: read it, repair it so that it boots on KVM's virtio devices, copy it, and write
what describes it. The source is never written. Options are spelled as virt-v2v's."""

EPILOG = """\
examples:
  one disk, into a folder, as qcow2; then boot a throw-away copy of the result:
    v2v convert -i disk vm.vmdk -o local -os /var/lib/libvirt/images -of qcow2 --boot-check
  a VM of two disks, under another name, its NIC on bridge br0:
    v2v convert -i disk a.raw b.raw -o local -os /srv -on web --mac 52:54:00:aa:bb:cc:bridge:br0
  a script that starts the result with QEMU:
    v2v convert -i disk vm.qcow2 -o qemu -os /var/tmp
  over a slow line, at 20 MiB/s at most, and read back and compared afterwards:
    v2v convert -i disk vm.vmdk -o local -os /srv --bandwidth 20M --verify
  into a pool of this host's libvirt, started when it is there:
    v2v convert -i libvirt web -o libvirt -os default --start
  into oVirt, the disks on one datastore into a storage domain of their own:
    v2v convert web.vmx -o rhv-upload -oc https://engine/ovirt-engine/api -op password \\
      -oo rhv-cafile=ca.pem -os data --storage slow-disks:archive
  onto a logical volume, or another host's disk, encrypted:
    v2v convert -i disk vm.vmdk -o block -os /dev/vg0/web
    v2v convert -i disk vm.vmdk -o nbd -os 'nbds://host/web?tls-certificates=/etc/pki/v2v'
  what would be read, and nothing else:
    v2v convert -i disk vm.vmdk --print-source

A job that fails or is interrupted is kept: `v2v resume JOB` goes on with it. docs/cli.md is the
whole reference."""


def add(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "convert",
        help="convert a VM and copy it to its target",
        description=DESCRIPTION,
        epilog=EPILOG,
        usage="v2v convert [-i MODE] GUEST... [-o MODE] [-os STORAGE] [options]",
        unsupported=unsupported.OPTIONS,
    )
    job_options.add_guests(parser)
    job_options.add_input(parser)
    job_options.add_output(parser)
    job_options.add_network(parser)
    job_options.add_guest(parser)
    _add_conversion(parser)
    copy_options.add(parser, several_disks=True)
    _add_actions(parser)
    job_options.add_messages(parser)
    return parser


def _add_conversion(parser: Parser) -> None:
    group = parser.add_argument_group("conversion")
    group.add_argument(
        "--no-convert",
        dest="convert",
        action="store_false",
        help="copy the disks as they are, change nothing in the guest",
    )
    group.add_argument(
        "--block-driver",
        dest="block_bus",
        choices=BLOCK_DRIVERS,
        default="virtio-blk",
        metavar="BUS",
        help="bus of the new disks: virtio-blk (default) or virtio-scsi",
    )
    group.add_argument(
        "--no-fstrim",
        dest="fstrim",
        action="store_false",
        help="do not trim the filesystems: copy their free space too",
    )
    group.add_argument(
        "--guest-agent",
        default="auto",
        metavar="HOW",
        help="the QEMU guest agent: auto (default), no, or a folder with its packages",
    )
    group.add_argument(
        "--initramfs",
        choices=("auto", "rebuild"),
        default="auto",
        metavar="WHEN",
        help="auto (default): rebuild it only if it lacks virtio drivers; or rebuild it always",
    )
    group.add_argument(
        "--no-keep-nic-names",
        dest="keep_nic_names",
        action="store_false",
        help="let the guest name its NICs anew; static addresses may be lost",
    )
    group.add_argument(
        "--appliance-network",
        action="store_true",
        help="let programs of the guest reach the network during the conversion (default: no)",
    )


def _add_actions(parser: Parser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument(
        "--boot-check",
        nargs="?",
        const=BOOT_CHECK_SECONDS,
        type=seconds,
        metavar="SECONDS",
        help="boot a throw-away copy of the result, without a network, and fail if it does not "
        f"come up in time (default: {BOOT_CHECK_SECONDS:.0f} s; give a large guest more on a "
        "host without KVM)",
    )
    group.add_argument(
        "--print-source", action="store_true", help="print what would be read, then stop"
    )
    group.add_argument(
        "--json",
        action="store_const",
        const="json",
        default=argparse.SUPPRESS,
        dest="progress",
        help="the same as --progress json: events as JSON lines on stdout, see docs/events.md; "
        "with --print-source: the source as JSON",
    )
    group.add_argument(
        "--machine-readable",
        nargs="?",
        const="",
        metavar="FORMAT",
        help="without guests: list capabilities. FORMAT (file:PATH, stream:stdout, stream:stderr, "
        "fd:N): messages as JSON lines, as virt-v2v writes them",
    )


def run(args: argparse.Namespace) -> int:
    if args.machine_readable == "" and not args.guests:
        print("\n".join(machine.capabilities()))
        return 0
    if "?" in args.io or "?" in args.oo:
        print(module_help.asked_help(args))
        return 0
    with keys.key_files(args.key, from_stdin=args.keys_from_stdin) as key_files:
        job = asked.to_job(args, key_files)
        if args.print_source:
            return _print_source(args, job)
        return _convert(args, job)


def _convert(args: argparse.Namespace, job: Job) -> int:
    from v2v import api

    result, watch = work.perform(
        args,
        lambda emit, cancel: api.start(
            job, jobs=job_options.jobs_folder(args), emit=emit, cancel=cancel
        ),
    )
    if summary.wanted(args):
        print(summary.text(result, watch.steps))
    return 0


def _print_source(args: argparse.Namespace, job: Job) -> int:
    from v2v import api

    quiet = argparse.Namespace(**{**vars(args), "quiet": True})  # warnings alone, to stderr
    source, _ = work.perform(
        quiet,
        lambda emit, cancel: api.print_source(
            job, jobs=job_options.jobs_folder(args), emit=emit, cancel=cancel
        ),
        stream=sys.stderr,
    )
    print(summary.json_text(source) if args.progress == "json" else summary.source_text(source))
    return 0
