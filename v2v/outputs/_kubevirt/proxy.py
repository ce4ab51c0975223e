"""CDI's upload proxy, which takes an image in one POST.

https://github.com/kubevirt/containerized-data-importer/blob/main/doc/upload.md: the proxy passes it
to a pod that fills the volume. There is no way to go on where a broken POST ended.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from v2v.errors import TargetError, UsageError
from v2v.outputs._kubevirt.answers import connection_error, text
from v2v.outputs._kubevirt.api import CDI_CONFIGS, Cluster
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.outputs._staged import OutgoingFile
from v2v.outputs._tls import check_cafile
from v2v.run import Run
from v2v.texts import clean
from v2v.types import KiB

CONNECT_SECONDS = 30.0
STALL_SECONDS = 300.0  # without a byte taken: the storage behind it may be slow
LOOK_SECONDS = 60.0  # for an answer to what sends nothing: CDI itself waits ten for its pod
ANSWER_SECONDS = 3600.0  # for one to an image: old CDI answers when it has converted it
MAX_ANSWER = 4096  # bytes
# Bytes per write to the socket. CPU seconds of ours for 384 MiB over TLS on loopback: 0.57 with the
# library's 8 KiB, 0.33 with 64 KiB, 0.27 with 256 KiB, 0.31 with 1 MiB, 0.25 with 4 MiB.
BLOCK = 256 * KiB
ASYNC, SYNC = "/v1beta1/upload-async", "/v1beta1/upload"
NO_SUCH_PATH = (404, 405, 501)


class TryAgainError(Exception):
    """The image did not get there; another try may do."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where images are sent to."""

    uri: str
    cafile: Path | None
    verify: bool

    def check(self, run: Run) -> None:
        """TargetError when it cannot be reached, or is not trusted."""
        status, _ = self._request("GET", "/healthz", {}, None, run)
        if status != 200:
            raise TargetError(
                f"{self.uri} is no upload proxy of CDI: it answered {status} to /healthz",
                id="target-unreachable",
                hint="-oo upload-proxy names another; see `kubectl get svc -A | grep uploadproxy`",
            )

    def send(self, token: str, file: OutgoingFile, run: Run) -> None:
        """TargetError for what trying again would not change, else TryAgainError."""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            status, _ = self._request("HEAD", ASYNC, headers, None, run)
            if status not in (200, *NO_SUCH_PATH):
                raise TryAgainError(f"{self.uri} answered {status}")
            path = ASYNC if status == 200 else SYNC
            more = {"Content-Type": "application/octet-stream", "Content-Length": str(file.size)}
            status, words = self._request("POST", path, headers | more, file, run)
        except TargetError as exc:
            if exc.id == "target-unreachable":
                raise TryAgainError(exc.message) from exc
            raise
        if status in (200, 409):  # 409: it has an image already, which only this job can send
            return
        if status in (400, 413):
            raise _refused(status, words, self.uri)
        raise TryAgainError(f"{self.uri} answered {status} {words}".rstrip())

    def _request(
        self, method: str, path: str, headers: dict[str, str], body: OutgoingFile | None, run: Run
    ) -> tuple[int, str]:
        host, port, prefix = self._parts()
        connection = http.client.HTTPSConnection(
            host, port, timeout=CONNECT_SECONDS, context=self._tls(), blocksize=BLOCK
        )
        try:
            connection.connect()
            with run.cancel.calling(partial(_hang_up, connection.sock)):
                connection.sock.settimeout(STALL_SECONDS)
                return self._exchange(connection, method, prefix + path, headers, body)
        except (OSError, http.client.HTTPException) as exc:
            run.cancel.check()
            raise connection_error(self.uri, exc, "-oo upload-cafile") from exc
        finally:
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        headers: dict[str, str],
        body: OutgoingFile | None,
    ) -> tuple[int, str]:
        try:
            connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            if body is None:
                raise
            # Refused before it was sent to its end: there may be an answer that says why.
        connection.sock.settimeout(LOOK_SECONDS if body is None else ANSWER_SECONDS)
        answer = connection.getresponse()
        words = answer.read(MAX_ANSWER).decode(errors="replace")
        return answer.status, clean(words).strip()

    def _tls(self) -> ssl.SSLContext:
        check_cafile("-oo upload-cafile", self.cafile)
        context = ssl.create_default_context(cafile=self.cafile)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _parts(self) -> tuple[str, int, str]:
        try:
            parts = urlsplit(self.uri)
            if not parts.hostname or not self.uri.isascii():
                raise ValueError("no host")
            return parts.hostname, parts.port or 443, parts.path.rstrip("/")
        except ValueError as exc:
            raise UsageError(
                f"-oo upload-proxy: {clean(self.uri)} is no address",
                id="uri-invalid",
                hint="for example https://cdi-uploadproxy.example.com",
            ) from exc


def find_proxy(options: KubevirtOptions, cluster: Cluster) -> Proxy:
    """The proxy of -oo upload-proxy, or the one that CDI tells of."""
    uri = options.upload_proxy or _told(cluster)
    if not uri:
        raise UsageError(
            "-o kubevirt needs -oo upload-proxy: CDI does not tell its address",
            id="option-required",
            hint="`kubectl port-forward -n cdi service/cdi-uploadproxy 8443:443` makes it "
            "-oo upload-proxy=https://127.0.0.1:8443",
        )
    return Proxy(uri, options.upload_cafile, options.verifypeer)


def _told(cluster: Cluster) -> str:
    try:
        host = text(cluster.get(CDI_CONFIGS, "config"), "status", "uploadProxyURL")
    except TargetError as exc:
        if exc.id != "target-forbidden":
            raise
        return ""
    return host if not host or "://" in host else f"https://{host}"


def _refused(status: int, words: str, uri: str) -> TargetError:
    if "larger than" in words:
        return TargetError(
            f"CDI refuses the image: {words}",
            id="target-space",
            hint="the storage gave less than was asked for; choose another class with -os",
        )
    if status == 413:
        return TargetError(
            f"what is in front of {uri} does not take files of that size",
            id="kubevirt-upload",
            hint="of an nginx ingress: the annotation proxy-body-size: '0'",
        )
    return TargetError(
        f"CDI refuses the image: {words or status}",
        id="kubevirt-upload",
        hint="the log of CDI's upload pod, in the namespace, may tell more",
    )


def _hang_up(sock: socket.socket) -> None:
    """As a plain socket: TLS would wait for the thread that is writing."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it has hung up
