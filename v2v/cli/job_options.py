"""The options that several commands share. What they ask for: v2v.cli.asked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from v2v import __version__
from v2v.cli.parser import Once, Parser, mac_map, network_map, positive, storage_map
from v2v.ui import KINDS


def add_guests(parser: Parser) -> None:
    parser.add_argument(
        "guests",
        nargs="*",
        metavar="GUEST",
        help="what to read: the disks of one VM, in their order; an .ova, .ovf, .vmx or .xml file; "
        "with -i libvirt, a VM's name",
    )


def add_input(parser: Parser) -> None:
    group = parser.add_argument_group("input")
    once(
        group,
        "-i",
        "MODE",
        "how to read the VM (default: told from the guest's name, else disk); `v2v modes` lists "
        "them",
    )
    once(group, "-if", "FORMAT", "format of the disks (default: told from their headers)")
    once(group, "-ic", "URI", "where the VM is managed, for inputs that connect to something")
    once(group, "-it", "TRANSPORT", "how to reach the disks, for inputs that know several ways")
    once(group, "-ip", "FILE", "file that holds the password for the input")
    once(
        group,
        "--vsphere-api",
        "HOW",
        "how a vCenter or ESXi host is asked: auto (default), pyvmomi or libvirt",
    )
    group.add_argument(
        "-io",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="an option of the input; may be repeated; `-io ?` lists them",
    )


def add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    once(group, "-o", "MODE", "where to put the VM (default: local); `v2v modes` lists them")
    once(
        group,
        "-os",
        "STORAGE",
        "where disks are stored: a folder that exists (-o local), a pool (libvirt), a storage "
        "domain (rhv-upload), a volume type (openstack), a device (block), an address (nbd)",
    )
    once(group, "-on", "NAME", "name of the new VM (default: the source's)")
    once(group, "-of", "FORMAT", "format of the new disks: raw or qcow2 (default: the output's)")
    once(group, "-oa", "ALLOCATION", "sparse (default) or preallocated")
    once(group, "-oc", "URI", "where to connect, for outputs that connect to something")
    once(
        group,
        "-op",
        "FILE",
        "file that holds the password for the output (default: $V2V_OUTPUT_PASSWORD, or asked for)",
    )
    group.add_argument(
        "-oo",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="an option of the output; may be repeated; `-oo ?` lists them",
    )
    group.add_argument(
        "--force", action="store_true", help="replace what is in the way at the target"
    )
    group.add_argument(
        "--start",
        action="store_true",
        help="start the guest at the target (libvirt, rhv-upload, proxmox, kubevirt)",
    )
    group.add_argument(
        "--storage",
        dest="storage_maps",
        action="append",
        default=[],
        type=storage_map,
        metavar="IN:OUT",
        help="put disk number IN, or the disks on the source's storage IN (a datastore, a pool), "
        "on storage OUT instead of that of -os; may be repeated",
    )


def once(group: Any, flag: str, metavar: str, help: str, *, alias: str | None = None) -> None:
    flags = (flag, alias) if alias else (flag,)
    group.add_argument(*flags, dest=flag, action=Once, metavar=metavar, help=help)


def add_image(parser: Parser) -> None:
    """How one image is read, for the commands that know of no VM."""
    group = parser.add_argument_group("source")
    once(
        group,
        "-if",
        "FORMAT",
        "format of the image (default: told from its header)",
        alias="--source-format",
    )
    once(group, "-ip", "FILE", "file that holds the password for http://USER@HOST/...")
    group.add_argument(
        "-io",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="allow-backing=PATH: a file or folder elsewhere that the image may refer to",
    )


def add_network(parser: Parser) -> None:
    group = parser.add_argument_group("network cards")
    for flags, kind in ((("-n", "--network"), "network"), (("-b", "--bridge"), "bridge")):
        group.add_argument(
            *flags,
            dest="nic_maps",
            action="append",
            default=[],
            type=network_map(kind),
            metavar="[IN:]OUT",
            help=f"put NICs of {kind} IN, or of every {kind}, on {kind} OUT; may be repeated",
        )
    group.add_argument(
        "--mac",
        dest="nic_maps",
        action="append",
        default=argparse.SUPPRESS,
        type=mac_map,
        metavar="MAC:KIND:OUT",
        help="put the NIC with this MAC on KIND (network or bridge) OUT; may be repeated. "
        "With -i disk: give the VM a NIC with this MAC",
    )


def add_guest(parser: Parser) -> None:
    """How the guest is read, which matters to inspect and convert alike."""
    group = parser.add_argument_group("guest")
    group.add_argument(
        "--root",
        default="ask",
        metavar="ROOT",
        help="which system of several: single, first or a device such as /dev/sda2 "
        "(default: ask, which lists them and stops)",
    )
    group.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="ID:file:PATH",
        help="file with the passphrase of an encrypted disk; ID is a device, a UUID or all; may "
        "be repeated. ID:key:TEXT works too, but other users of this host see TEXT",
    )
    group.add_argument(
        "--keys-from-stdin", action="store_true", help="read passphrases from stdin, one a line"
    )
    group.add_argument(
        "-m", "--memsize", type=positive("-m"), metavar="MIB", help="memory of the appliance"
    )
    group.add_argument(
        "--smp", type=positive("--smp"), metavar="N", help="virtual CPUs of the appliance"
    )


def add_messages(parser: Parser) -> None:
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--progress",
        choices=("auto", *KINDS),
        default="auto",
        metavar="HOW",
        help="auto (default: rich on a terminal, else plain), rich, plain, json or none",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="debug messages to stderr")
    group.add_argument(
        "-x", "--trace", action="store_true", help="as -v; and trace libguestfs calls in the log"
    )
    group.add_argument(
        "--color",
        "--colors",
        "--colour",
        "--colours",
        dest="color",
        action="store_true",
        help="colours even where stdout is not a terminal",
    )
    group.add_argument("--wrap", action="store_true", help="wrap plain messages to 76 columns")
    group.add_argument("-V", "--version", action="version", version=f"v2v {__version__}")
    add_jobs_dir(group)


def add_jobs_dir(group: Any) -> None:
    group.add_argument(
        "--jobs-dir",
        metavar="DIR",
        help="where jobs keep their journal, log and overlays (default: $V2V_JOBS, else "
        "/var/lib/v2v/jobs for root and ~/.local/state/v2v/jobs for others)",
    )


def jobs_folder(args: argparse.Namespace) -> Path | None:
    return Path(args.jobs_dir).expanduser().absolute() if args.jobs_dir else None
