"""The addresses of vCenter and ESXi hosts, as libvirt and virt-v2v write them.

    vpx://USER@VCENTER[:PORT]/DATACENTER[/FOLDER]/[CLUSTER/]ESXI[?no_verify=1]
    esx://USER@ESXI[:PORT]/[?no_verify=1]

https://libvirt.org/drvesx.html. What follows the vCenter may be left out: it says where to look.
"""

from __future__ import annotations

from pathlib import Path

from v2v.address import Address, parse
from v2v.errors import UsageError
from v2v.inputs._vsphere.place import HTTPS_PORT, VspherePlace

SCHEMES = ("vpx", "esx")
EXAMPLE = "vpx://USER@VCENTER/DATACENTER/ESXI, or esx://root@ESXI"
NO_VERIFY = "no_verify"
NO_EFFECT = ("auto_answer", "vCenter")  # libvirt's: for what v2v never does
ROOT = "root"  # who logs in to an ESXi host where nobody is named


def read_place(
    uri: str,
    *,
    password_file: Path | None = None,
    cafile: Path | None = None,
    thumbprint: str | None = None,
) -> VspherePlace:
    """What -ic says, with the files of other options. UsageError if it is no such address."""
    address = parse(uri)
    if not address.user and "@" in uri:  # maybe a password with a slash in it
        uri = f"{address.scheme}://..."
    if address.scheme not in SCHEMES or not address.host:
        raise _invalid(uri, f"is not the address of a VMware host: {EXAMPLE}")
    path = address.path.strip("/")
    if address.scheme == "esx" and path:
        raise _invalid(uri, "names something behind the ESXi host: that is for vpx:// only")
    return VspherePlace(
        scheme=address.scheme,
        server=address.host,
        port=address.port or HTTPS_PORT,
        user=_user(uri, address),
        path=path,
        password_file=password_file,
        cafile=cafile,
        thumbprint=thumbprint,
        verify=_verify(uri, address),
    )


def _user(uri: str, address: Address) -> str:
    if address.user:
        return address.user
    if address.scheme == "esx":
        return ROOT
    raise _invalid(
        uri, "does not say who logs in: vpx://USER@..., with %40 for an @ and %5C for a \\ in USER"
    )


def _verify(uri: str, address: Address) -> bool:
    for key in address.query:
        if key not in (NO_VERIFY, *NO_EFFECT):
            raise _invalid(uri, f"has {key}=, which v2v does not know")
    word = address.query.get(NO_VERIFY, "0")
    if word not in ("0", "1"):
        raise _invalid(uri, f"has {NO_VERIFY}={word}: it is 0 or 1")
    return word == "0"


def _invalid(uri: str, what: str) -> UsageError:
    return UsageError(
        f"-ic {uri} {what}", id="vsphere-uri", hint="see `-ic` in docs/input-vsphere.md"
    )
