"""An authority of a test's own, and certificates of servers that it signs."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    file: Path  # the server's certificate and its key
    cafile: Path  # the authority's
    der: bytes

    @property
    def context(self) -> ssl.SSLContext:
        """For the server."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.file)
        return made

    def thumbprint(self, algorithm: str = "sha256") -> str:
        """As vSphere shows it: AA:BB:..."""
        return hashlib.new(algorithm, self.der).digest().hex(":").upper()


def certificate(
    folder: Path, *, address: str = "127.0.0.1", expired: bool = False, name: str = "server"
) -> Certificate:
    """Files NAME.pem and NAME-ca.pem in `folder`, of an authority made for this one."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("v2v test authority")
    authority = _builder(issuer, issuer, ca_key, expired=False)
    ca = authority.add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    ).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    builder = _builder(_name(address), issuer, key, expired=expired)
    made = builder.add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file, cafile = folder / f"{name}.pem", folder / f"{name}-ca.pem"
    file.write_bytes(made.public_bytes(pem) + secret)
    cafile.write_bytes(ca.public_bytes(pem))
    return Certificate(file, cafile, made.public_bytes(serialization.Encoding.DER))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now - DAY if expired else now + 30 * DAY)
    )
