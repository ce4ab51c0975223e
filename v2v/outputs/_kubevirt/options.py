"""The options of -o kubevirt, and which of its two ways they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2v.errors import UsageError
from v2v.options import option
from v2v.outputs._folder import ImageFormat
from v2v.outputs._kubevirt.names import LABEL, SUBDOMAIN
from v2v.outputs._kubevirt.networks import is_zone
from v2v.types import Allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class KubevirtOptions:
    # A Path, so that a folder lasts longer than the current one; of a storage class only the name
    # counts.
    storage: Path | None = option(
        "-os",
        "folder for the disks and the manifest; into a cluster: the storage class (default: the "
        "cluster's)",
        default=None,
        metavar="FOLDER|CLASS",
    )
    format: ImageFormat | None = option(
        "-of", "format of the disks (default: raw in a folder; qcow2 to a cluster)", default=None
    )
    allocation: Allocation = option(
        "-oa", "whether free space inside the disks takes space", default=Allocation.SPARSE
    )
    compressed: bool = option("-oo compressed", "compress the disks (qcow2 only)", default=False)
    force: bool = option(
        "--force", "replace files that have the guest's names (folder only)", default=False
    )
    start: bool = option("--start", "let the VM run from the beginning", default=False)
    server: str | None = option(
        "-oc", "address of the cluster's API: https://HOST:6443", default=None, metavar="URI"
    )
    token: Path | None = option(
        "-op", "file that holds the token for -oc", default=None, metavar="FILE"
    )
    cafile: Path | None = option(
        "-oo cafile", "certificates that -oc is trusted by (default: the system's)", default=None
    )
    kubeconfig: Path | None = option(
        "-oo kubeconfig", "file that tells where the cluster is, instead of -oc", default=None
    )
    context: str | None = option(
        "-oo context", "context of the kubeconfig (default: its current one)", default=None
    )
    namespace: str | None = option(
        "-oo namespace",
        "namespace of the VM (default: of the context, else default; in a folder: none)",
        default=None,
    )
    upload_proxy: str | None = option(
        "-oo upload-proxy",
        "address of CDI's upload proxy (default: what CDI tells)",
        default=None,
        metavar="URI",
    )
    upload_cafile: Path | None = option(
        "-oo upload-cafile",
        "certificates that the upload proxy is trusted by (default: the system's)",
        default=None,
    )
    verifypeer: bool = option(
        "-oo verifypeer",
        "no: trust any certificate, of the API and of the upload proxy",
        default=True,
    )
    timezone: str | None = option(
        "-oo timezone",
        "zone of a guest that takes its clock for local time, as Europe/Berlin",
        default=None,
    )
    staging: Path | None = option(
        "-oo staging",
        "folder for the images until they are sent (default: the job's own)",
        default=None,
        metavar="FOLDER",
    )

    @property
    def in_cluster(self) -> bool:
        return self.server is not None or self.kubeconfig is not None

    @property
    def storage_class(self) -> str | None:
        return self.storage.name if self.storage else None


# Field and flag of the options that only one of the ways knows.
OF_CLUSTER = {
    "token": "-op",
    "cafile": "-oo cafile",
    "context": "-oo context",
    "upload_proxy": "-oo upload-proxy",
    "upload_cafile": "-oo upload-cafile",
    "verifypeer": "-oo verifypeer",
    "staging": "-oo staging",
}
OF_FOLDER = {"force": "--force"}
OF_SERVER = {"token": "-op", "cafile": "-oo cafile"}
OF_KUBECONFIG = {"context": "-oo context"}


def check(options: KubevirtOptions) -> None:
    """UsageError for options that contradict each other, or whose value can be none."""
    if options.server is not None and options.kubeconfig is not None:
        raise UsageError(
            "-oc and -oo kubeconfig both tell where the cluster is",
            id="option-conflict",
            hint="leave out one of them; -oo context chooses one of the kubeconfig's clusters",
        )
    if options.in_cluster:
        _refuse(options, OF_FOLDER, "nothing in a cluster is replaced: -on gives another name")
        other = OF_KUBECONFIG if options.server is not None else OF_SERVER
        given = "-oc" if options.server is not None else "-oo kubeconfig"
        _refuse(options, other, f"leave it out, for {given} is given")
    else:
        _refuse(options, OF_CLUSTER, "it belongs to -oc or -oo kubeconfig, which name a cluster")
        _require_folder(options)
    _check_words(options)


def _refuse(options: KubevirtOptions, flags: Mapping[str, str], why: str) -> None:
    fields = type(options).__dataclass_fields__
    for name, flag in flags.items():
        if getattr(options, name) != fields[name].default:
            raise UsageError(
                f"-o kubevirt: {flag} has no effect here", id="option-useless", hint=why
            )


def _require_folder(options: KubevirtOptions) -> None:
    if options.storage is None:
        raise UsageError(
            "-o kubevirt needs -os, or a cluster",
            id="option-required",
            hint="-os FOLDER writes files; -oc or -oo kubeconfig sends the guest to a cluster",
        )


def _check_words(options: KubevirtOptions) -> None:
    checks: Mapping[str, tuple[Any, Callable[[str], Any], str]] = {
        "-oo namespace": (options.namespace, LABEL.fullmatch, "name of a namespace"),
        "-oo timezone": (options.timezone, is_zone, "time zone"),
        "-oc": (options.server, _is_https, "HTTPS address"),
        "-oo upload-proxy": (options.upload_proxy, _is_https, "HTTPS address"),
    }
    if options.in_cluster:
        storage_class = (options.storage_class, SUBDOMAIN.fullmatch, "name of a storage class")
        checks = {**checks, "-os": storage_class}
    for flag, (word, is_good, kind) in checks.items():
        if word is not None and not is_good(word):
            raise UsageError(
                f"{flag}: {word!r} is no {kind}",
                id="option-value",
                hint=HINTS.get(flag, "Kubernetes knows small letters, digits and dashes in names"),
            )


HINTS = {
    "-oo timezone": "for example -oo timezone=Europe/Berlin",
    "-oc": "for example -oc https://api.example.com:6443; the token is not sent without TLS",
    "-oo upload-proxy": "for example https://cdi-uploadproxy.example.com; it is not used without "
    "TLS",
}


def _is_https(word: str) -> bool:
    return word.startswith("https://") and len(word) > len("https://")
