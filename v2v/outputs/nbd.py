"""-o nbd: exports of NBD servers, such as another host's block devices, or a bare-metal machine."""

from __future__ import annotations

from lxml import etree

from v2v.address import NBD_FILES, NBD_SCHEMES, parse, scheme_of
from v2v.errors import UsageError
from v2v.options import did_you_mean
from v2v.outputs._existing import ExistingOptions, ExistingOutput, new_source
from v2v.targets import NbdExport, absolute_uri
from v2v.types import TargetDisk

# Seconds for 256 MiB of data to a raw file behind a server, the best of 5 on a busy host:
#               256 KiB  1 MiB  2 MiB  4 MiB  8 MiB  the engine's choice
# qemu-nbd         0.28   0.19   0.32   0.17   0.42   0.29
# nbdkit file      0.28   0.24   0.26   0.37   0.42   0.20
# Nothing to prefer, and what is behind a server is not known.


class NbdOutput(ExistingOutput):
    mode = "nbd"
    summary = "exports of NBD servers, with or without TLS; and a libvirt domain"
    Options = ExistingOptions
    request_size = None
    bootable = False

    def place(self, word: str) -> NbdExport:
        if scheme_of(word) not in NBD_SCHEMES:
            raise UsageError(
                f"-o nbd: {word!r} is not the address of an NBD export",
                id="uri-scheme",
                hint=did_you_mean(scheme_of(word), NBD_SCHEMES)
                or "for example -os nbd://host:10809/web, or nbds:// with TLS; -o block writes to "
                "devices of this host",
            )
        files = {key: parse(word).query.get(key, "/") for key in NBD_FILES}
        for key, path in files.items():
            if not path.startswith("/"):
                raise UsageError(
                    f"-o nbd: {key}={path} is not an absolute path",
                    id="option-value",
                    hint="the job may be resumed from another folder",
                )
        return NbdExport(absolute_uri(word))

    def describe_disk(self, element: etree._Element, disk: TargetDisk) -> None:
        """https://libvirt.org/formatdomain.html: a disk of type network, protocol nbd."""
        address = parse(disk.location)
        element.set("type", "network")
        source = new_source(element, protocol="nbd")
        if export := address.path.removeprefix("/"):
            source.set("name", export)
        if address.scheme.startswith("nbds"):
            source.set("tls", "yes")
        host = etree.SubElement(source, "host")
        if socket := address.query.get("socket"):
            host.set("transport", "unix")
            host.set("socket", socket)
        else:
            host.set("name", address.host or "localhost")
            if address.port is not None:
                host.set("port", str(address.port))
