"""What virt-v2v's command line has and ours does not have yet: refused by name, never ignored."""

from __future__ import annotations

_CUSTOMIZE = "change the guest after the conversion, with virt-customize for example"
_SELINUX = "v2v takes care of SELinux labels itself where a guest needs it"

# Options of single modes, which older versions had as options of their own.
_VDDK = (
    "vddk-config",
    "vddk-cookie",
    "vddk-libdir",
    "vddk-nfchostport",
    "vddk-port",
    "vddk-snapshot",
    "vddk-thumbprint",
    "vddk-transports",
)
_VDSM = (
    "vdsm-compat",
    "vdsm-image-uuid",
    "vdsm-ovf-flavour",
    "vdsm-ovf-output",
    "vdsm-vm-uuid",
    "vdsm-vol-uuid",
)

# Option: what to do instead.
OPTIONS = {
    **dict.fromkeys(
        (
            "append-line",
            "chmod",
            "chown",
            "commands-from-file",
            "copy",
            "copy-in",
            "delete",
            "edit",
            "firstboot",
            "firstboot-command",
            "firstboot-install",
            "hostname",
            "install",
            "link",
            "mkdir",
            "move",
            "password",
            "password-crypto",
            "root-password",
            "run",
            "run-command",
            "scrub",
            "ssh-inject",
            "tar-in",
            "timezone",
            "touch",
            "truncate",
            "truncate-recursive",
            "uninstall",
            "update",
            "upload",
            "write",
            "no-logfile",
        ),
        _CUSTOMIZE,
    ),
    **dict.fromkeys(
        (
            "no-selinux-relabel",
            "selinux-relabel",
            "selinux-relabel-at-boot",
            "selinux-relabel-exclude",
        ),
        _SELINUX,
    ),
    **{name: f"write -io {name}=VALUE" for name in _VDDK},
    **{name: f"write -oo {name}=VALUE" for name in _VDSM},
    "bandwidth-file": "start with --bandwidth RATE; `v2v jobs limit JOB RATE` changes it later",
    **dict.fromkeys(("debug-gc", "no-trim", "vmtype"), "leave it out; it has no effect"),
    "compressed": "write -of qcow2 -oo compressed",
    "password-file": "write -ip FILE",
    "qemu-boot": "start the script that -o qemu writes",
    "collect": "copy files out of the source with guestfish or virt-copy-out",
    "collect-output": "copy files out of the source with guestfish or virt-copy-out",
    "in-place": "v2v never writes to the source; the result is always a copy",
    "echo-keys": "v2v asks for no passphrase: give it with --key or --keys-from-stdin",
}
