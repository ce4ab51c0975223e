"""Which libvirt host the guest goes to, and the errors of one that is a target."""

from __future__ import annotations

import threading
from pathlib import Path

from v2v.address import OUTPUT_LOGIN, parse
from v2v.errors import TargetError
from v2v.libvirt_connection import Errors, LibvirtHost
from v2v.password import output_password

TLS_WORDS = ("certificate", "TLS", "x509")  # in libvirt's errors; they have no code of their own
LOCAL_TRANSPORTS = ("", "unix")
DRIVERS = ("QEMU", "TEST")  # the last is libvirt's own for tests


def host_of(uri: str | None, password_file: Path | None) -> LibvirtHost:
    """It may be written to. UsageError for a URI that is none, or holds a password."""
    user = parse(uri, login=OUTPUT_LOGIN).user if uri else None
    shown = uri or "libvirt"
    lock = threading.Lock()  # disks connect at once; the user is asked by one of them

    def password() -> str | None:
        with lock:
            return output_password(password_file, what=shown)

    return LibvirtHost(uri, ERRORS, password, user=user, read_only=False)


def check_driver(uri: str) -> None:
    """TargetError for another hypervisor's address: nobody need be asked for a login there."""
    driver = parse(uri, login=OUTPUT_LOGIN).scheme.partition("+")[0]
    if driver and driver.upper() not in DRIVERS:
        raise other_driver(uri, driver)


def other_driver(shown: str, driver: str) -> TargetError:
    return TargetError(
        f"-oc {shown}: v2v's guests run on QEMU, not on {driver}",
        id="target-answer",
        hint="for example -oc qemu:///system, or qemu+ssh://root@HOST/system",
    )


def is_local(uri: str) -> bool:
    """Whether this host's files are those of the libvirt at a URI: https://libvirt.org/uri.html."""
    address = parse(uri)
    return not address.host and address.scheme.partition("+")[2] in LOCAL_TRANSPORTS


def _denied(shown: str, text: str) -> TargetError:
    return _untrusted(shown, text) or TargetError(
        f"-oc {shown} does not let you in: {text}",
        id="target-login",
        hint="on this host, be root or in the group libvirt; with ssh, log in once by hand, with "
        "a key; qemu+libssh://USER@HOST/system and qemu+tls:// take the password of -op FILE",
    )


def _failed(shown: str, text: str) -> TargetError:
    return _untrusted(shown, text) or TargetError(
        f"-oc {shown} cannot be reached: {text}",
        id="target-unreachable",
        hint="is libvirt running there, and the address right? "
        "`virsh -c URI list --all` connects as v2v does",
    )


def _untrusted(shown: str, text: str) -> TargetError | None:
    """Trouble with TLS, which libvirt tells as one of the login or of the connection."""
    if not any(word in text for word in TLS_WORDS):
        return None
    return TargetError(
        f"-oc {shown}: {text}",
        id="target-untrusted",
        hint="libvirt looks for the CA in /etc/pki/CA/cacert.pem, or in the folder that the "
        "URI names: qemu+tls://HOST/system?pkipath=/FOLDER",
    )


def _silent(shown: str, seconds: float) -> TargetError:
    return TargetError(
        f"-oc {shown} did not answer within {seconds:.0f} s",
        id="target-unreachable",
        hint="is the host up, and the address right?"
        + (" libssh hangs in some versions of libvirt: use qemu+ssh" if "+libssh" in shown else ""),
    )


def _refused(shown: str, text: str) -> TargetError:
    return TargetError(
        f"-oc {shown}: {text}",
        id="target-refused",
        hint="these are libvirt's own words; when that is repaired, `v2v resume` goes on",
    )


ERRORS = Errors(_denied, _failed, _silent, _refused)
