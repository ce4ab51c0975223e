"""How a vCenter or ESXi host is known to be that: by its certificate, before anything is sent.

One context for all who connect: the API's client, and the reader of files.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
from pathlib import Path

from v2v.errors import SourceError, UsageError
from v2v.inputs._vsphere.place import VspherePlace

ALGORITHMS = {64: "sha256", 40: "sha1"}  # by the number of digits
LOOK_SECONDS = 10.0


class _Context(ssl.SSLContext):
    """`thumbprint` is that of the one certificate that it takes; empty: verified as usual."""

    thumbprint = ""


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        wanted = getattr(self.context, "thumbprint", "")
        if wanted:
            _check(self.getpeercert(binary_form=True) or b"", wanted)


def make_context(place: VspherePlace) -> ssl.SSLContext:
    """Verifies by the thumbprint if one is given, else by the CAs of `cafile`, else by this host's.
    Who gives neither may have it verify nothing.

    A connection fails in its handshake: with ssl.SSLCertVerificationError, or another ssl.SSLError.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Socket
    if place.thumbprint is not None:
        context.thumbprint = parse_thumbprint(place.thumbprint)
    if place.cafile is not None and not context.thumbprint:
        _load(context, place.cafile)
    elif context.thumbprint or not place.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    return context


def parse_thumbprint(text: str) -> str:
    """64 or 40 digits in small letters, from what consoles and OpenSSL print."""
    digits = re.sub(r"^sha-?(1|256)( fingerprint)?[:=]", "", text.strip().lower())
    digits = re.sub(r"[:\s-]", "", digits)
    if len(digits) not in ALGORITHMS or not re.fullmatch("[0-9a-f]+", digits):
        raise UsageError(
            f"-io thumbprint={text[:100]}: not a fingerprint of a certificate",
            id="tls-thumbprint",
            hint="64 hexadecimal digits (SHA-256), or 40 (SHA-1), with or without colons",
        )
    return digits


def seen_thumbprint(place: VspherePlace) -> str:
    """SHA-256 of the certificate that whoever answers there shows, for people to compare.

    Nothing is sent to them. Empty if nobody answers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = place.server, place.port
    try:
        with (
            socket.create_connection(address, LOOK_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=place.server) as connection,
        ):
            certificate = connection.getpeercert(binary_form=True) or b""
    except OSError:
        return ""
    return _shown(hashlib.sha256(certificate).hexdigest())


def _shown(digest: str) -> str:
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2)).upper()


def _check(certificate: bytes, wanted: str) -> None:
    digest = hashlib.new(ALGORITHMS[len(wanted)], certificate).hexdigest()
    if not hmac.compare_digest(digest, wanted):
        shown = _shown(digest)
        error = ssl.SSLCertVerificationError(1, f"its thumbprint is {shown}, not the one given")
        error.verify_message = f"its thumbprint is {shown}, not the one given"
        raise error


def _load(context: ssl.SSLContext, cafile: Path) -> None:
    try:
        context.load_verify_locations(cafile)
    except (OSError, ssl.SSLError) as exc:
        raise SourceError(
            f"-io cafile={cafile}: cannot be used: {exc.strerror or exc}",
            id="tls-cafile",
            hint="name a file with the CA's certificate as PEM (-----BEGIN CERTIFICATE-----)",
        ) from exc
