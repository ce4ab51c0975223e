"""-it vddk: disks through nbdkit's own vddk plugin, for those who have VMware's library.

The parameters are the plugin's: nbdkit-vddk-plugin(1). It logs in for every connection, reads by
sectors, and wants requests that the host has memory for.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v import nbd_client, nbdkit, process
from v2v.endpoint import Endpoint
from v2v.errors import HostError, SourceError, UsageError, V2VError
from v2v.inputs._vsphere.errors import auth, unreachable
from v2v.inputs._vsphere.place import HTTPS_PORT, VspherePlace
from v2v.inputs._vsphere.tls import make_context, parse_thumbprint
from v2v.options import option
from v2v.process import ToolError
from v2v.run import Run
from v2v.texts import clean
from v2v.types import MiB

FILTERS = ("blocksize", "retry")
# Larger ones make vCenter and ESXi run out of memory: virt-v2v found 2 MiB to be safe.
LARGEST_REQUEST = 2 * MiB
TLS_SECONDS = 30.0
SHA1_DIGITS = 40
LIBRARY = "lib*/libvixDiskLib.so*"


@dataclass(frozen=True, slots=True, kw_only=True)
class VddkOptions:
    """Options of -it vddk, as virt-v2v has them: for modes to inherit."""

    vddk_libdir: Path | None = option(
        "-io vddk-libdir", "the folder vmware-vix-disklib-distrib of VMware's VDDK", default=None
    )
    vddk_thumbprint: str | None = option(
        "-io vddk-thumbprint",
        "SHA-1 thumbprint of the server's certificate, for VDDK",
        default=None,
        metavar="xx:xx:...",
    )
    vddk_compression: str | None = option(
        "-io vddk-compression", "of what VDDK transfers: none, zlib, fastlz or skipz", default=None
    )
    vddk_config: Path | None = option("-io vddk-config", "VDDK's own configuration", default=None)
    vddk_cookie: str | None = option(
        "-io vddk-cookie", "refused: nbdkit would show it to every user of this host", default=None
    )
    vddk_file: tuple[str, ...] = option(
        "-io vddk-file",
        "the path of a disk as VDDK wants it, '[DATASTORE] VM/VM.vmdk'; once for each disk",
        default=(),
        metavar="PATH",
    )
    vddk_nfchostport: int | None = option(
        "-io vddk-nfchostport", "port of NFC on the ESXi host", default=None
    )
    vddk_port: int | None = option("-io vddk-port", "port of the server, for VDDK", default=None)
    vddk_snapshot: str | None = option(
        "-io vddk-snapshot", "managed object of the snapshot to read", default=None, metavar="MOREF"
    )
    vddk_transports: str | None = option(
        "-io vddk-transports", "how VDDK may transfer: nbdssl:nbd, file, ...", default=None
    )


@contextmanager
def serve_vddk(
    disks: Sequence[str],
    moref: str,
    place: VspherePlace,
    options: VddkOptions,
    run: Run,
    *,
    snapshot: str | None = None,
) -> Iterator[Sequence[Endpoint]]:
    """Serve the disks of the VM `moref` ("vm-123"), of paths such as "[ds] web/web.vmdk".

    `snapshot`: the reference of the one to read ("snapshot-7"), unless the options name one.
    HostError without plugin or library; SourceError where VDDK cannot open a disk.
    """
    check_host(options)
    paths = _paths(disks, options)
    common = _parameters(moref, place, options, snapshot)
    with ExitStack() as stack:
        served = []
        for index, path in enumerate(paths):
            params = [*common, f"file={path}"]
            served.append(stack.enter_context(_serve(params, path, place, index, run)))
        yield served


def check_host(options: VddkOptions) -> None:
    """HostError unless the plugin is there, and the library where the options say it is."""
    nbdkit.check_plugin("vddk", "nbdkit-plugin-vddk", "nbdkit-vddk-plugin")
    folder = options.vddk_libdir
    if folder is not None and not any(folder.glob(LIBRARY)):
        raise HostError(
            f"-io vddk-libdir={folder}: VMware's library is not in there",
            id="vddk-library",
            hint="give the folder vmware-vix-disklib-distrib, which has lib64/libvixDiskLib.so; "
            "without the library leave out -it vddk",
        )


def _paths(disks: Sequence[str], options: VddkOptions) -> Sequence[str]:
    given = options.vddk_file
    if given and len(given) != len(disks):
        raise UsageError(
            f"-io vddk-file is given {len(given)} times, for {len(disks)} disks",
            id="vddk-files",
            hint="give it once for each disk, in the order of the disks",
        )
    return given or disks


def _parameters(
    moref: str, place: VspherePlace, options: VddkOptions, snapshot: str | None
) -> list[str]:
    """Those that all disks have in common."""
    if options.vddk_cookie is not None:
        raise UsageError(
            "-io vddk-cookie: nbdkit takes it as an argument only, which every user of this host "
            "can see",
            id="vddk-cookie",
            hint="log in with a password instead: -ip FILE",
        )
    if place.password_file is None:
        raise UsageError(
            "-it vddk needs the password in a file",
            id="option-required",
            hint="-ip FILE: file with the password of the vCenter or ESXi host",
        )
    given = {
        "server": place.server,
        "user": place.user,
        "password": f"+{place.password_file}",
        "vm": f"moref={moref}",
        "thumbprint": _thumbprint(place, options),
        "maxdata": LARGEST_REQUEST,
        "minblock": 512,
        "libdir": options.vddk_libdir,
        "config": options.vddk_config,
        "compression": options.vddk_compression,
        "nfchostport": options.vddk_nfchostport,
        "port": options.vddk_port or (place.port if place.port != HTTPS_PORT else None),
        "snapshot": options.vddk_snapshot or snapshot,
        "transports": options.vddk_transports,
    }
    return [f"{key}={word}" for key, word in given.items() if word is not None]


def _thumbprint(place: VspherePlace, options: VddkOptions) -> str:
    """VDDK verifies by nothing else than SHA-1, so that we verify first, where that is not what the
    user gave."""
    for given in (options.vddk_thumbprint, place.thumbprint):
        if given is not None and len(digits := parse_thumbprint(given)) == SHA1_DIGITS:
            return _with_colons(digits)
    try:
        return _sha1(_certificate(place))
    except ssl.SSLCertVerificationError as exc:
        shown = _sha1(_certificate(replace(place, verify=False, thumbprint=None)))
        raise SourceError(
            f"{place.shown}: its certificate is not trusted: {clean(exc.verify_message)}; "
            f"its SHA-1 thumbprint, which VDDK wants, is {shown}",
            id="vddk-thumbprint",
            hint="compare that with what the server's own console shows; if it is the same: "
            f"-io vddk-thumbprint={shown}",
        ) from exc


def _certificate(place: VspherePlace) -> bytes:
    """That of the server, which is verified as the place says; as DER."""
    try:
        with (
            socket.create_connection((place.server, place.port), TLS_SECONDS) as plain,
            make_context(place).wrap_socket(plain, server_hostname=place.server) as connection,
        ):
            return connection.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError:
        raise
    except OSError as exc:
        raise unreachable(place, exc.strerror or str(exc)) from exc


def _sha1(certificate: bytes) -> str:
    return _with_colons(hashlib.sha1(certificate).hexdigest())  # noqa: S324  VDDK has no other


def _with_colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


@contextmanager
def _serve(
    params: Sequence[str], path: str, place: VspherePlace, index: int, run: Run
) -> Iterator[Endpoint]:
    name = f"source-{index}"
    log = run.folder / "log" / f"{name}.log"
    before = len(process.log_text(log))  # of an earlier try of this job
    with ExitStack() as stack:
        try:
            socket = stack.enter_context(
                nbdkit.serve("vddk", params, run=run, name=name, filters=FILTERS)
            )
            endpoint = nbd_client.describe(socket, cancel=run.cancel)
        except (ToolError, SourceError) as exc:
            words = process.log_text(log)[before:]
            raise _explained(exc, path, place, words, log) from exc
        # Several handles of one disk disturb each other: 2 to 7 times slower, as virt-v2v found.
        yield replace(endpoint, request_size=LARGEST_REQUEST, multi_conn=False)


# Errors -------------------------------------------------------------------------------------------


def _explained(exc: V2VError, path: str, place: VspherePlace, words: str, log: Path) -> V2VError:
    """By what VDDK says, which is in the server's log; its last words are not always the cause."""
    for pattern, error in KNOWN:
        if re.search(pattern, words, re.IGNORECASE):
            return error(clean(path), place)
    said = process.last_line(words) or exc.message
    return SourceError(
        f"{place.shown}: {clean(path)} cannot be read by VDDK: {clean(said)}",
        id="source-serve",
        hint=f"the server's log is {log}",
    )


def _no_library(path: str, place: VspherePlace) -> V2VError:
    return HostError(
        "nbdkit's vddk plugin does not find VMware's library",
        id="vddk-library",
        hint="-io vddk-libdir=/path/to/vmware-vix-disklib-distrib; without it leave out -it vddk",
    )


def _login(path: str, place: VspherePlace) -> V2VError:
    return auth(place, "VDDK's user or password is wrong")


def _other_certificate(path: str, place: VspherePlace) -> V2VError:
    return SourceError(
        f"{place.shown}: its certificate has not the thumbprint that VDDK was given",
        id="vddk-thumbprint",
        hint="is it the SHA-1 thumbprint, and the certificate still the same?",
    )


def _locked(path: str, place: VspherePlace) -> V2VError:
    return SourceError(
        f"{place.shown}: {path} is locked",
        id="source-locked",
        hint="shut the VM down, or make a snapshot of it and read that: -io snapshot=NAME",
    )


def _missing(path: str, place: VspherePlace) -> V2VError:
    return SourceError(
        f"{place.shown}: VDDK finds no {path}",
        id="source-missing",
        hint="is it still there? -io vddk-file=PATH gives another path",
    )


# What VDDK and the plugin say, as regular expressions; the first that is found counts.
KNOWN: tuple[tuple[str, Callable[[str, VspherePlace], V2VError]], ...] = (
    (r"libvixDiskLib.*cannot open shared|could not open VDDK|may need to .*libdir", _no_library),
    (r"incorrect user ?name or password|cannot complete login|InvalidLogin", _login),
    (r"thumbprint|SSL (certificate|exception)|certificate verif", _other_certificate),
    (r"failed to lock the file|file is locked|VIX_E_FILE_(ALREADY_LOCKED|ACCESS)", _locked),
    (r"file (was )?not found|does not exist|VIX_E_FILE_NOT_FOUND", _missing),
)
