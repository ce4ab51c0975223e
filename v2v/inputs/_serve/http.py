"""Reading the start of a disk image behind http:// or https://, to check it before it is served."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from v2v.address import parse
from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.image.magic import HEAD
from v2v.password import read_password

TIMEOUT = 30.0  # seconds without a byte
CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-\d{1,19}/(\d{1,19})", re.ASCII)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The login is for the server that the user named, not for one that it sends us on to."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, request: urllib.request.Request, *answer
    ) -> urllib.request.Request | None:
        onward = super().redirect_request(request, *answer)
        if onward is not None and _server(onward) != _server(request):
            onward.remove_header("Authorization")
        return onward


def _server(request: urllib.request.Request) -> tuple[str, str]:
    return request.type, request.host


_OPENER = urllib.request.build_opener(_Redirects)


def open_web(request: urllib.request.Request) -> http.client.HTTPResponse:
    """The answer of a web server; raises what urllib does."""
    answer: http.client.HTTPResponse = _OPENER.open(request, timeout=TIMEOUT)
    return answer


class HttpReader:
    """A v2v.image.reader.Reader over ranged GET requests, as nbdkit's curl plugin makes them."""

    def __init__(
        self, url: str, password_file: Path | None = None, cancel: Cancel | None = None
    ) -> None:
        self.name = url
        self._cancel = cancel or Cancel()
        self._url, user = split_user(url)
        self._headers = authorization(user, password_file)
        self.size = 0
        self.version = ""  # which content this is, as the server tells it; empty: it does not
        self._head = b""
        self._head = self._get(0, HEAD)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self.size:
            return b""
        if offset + length <= len(self._head) or len(self._head) == self.size:
            return self._head[offset : offset + length]
        return self._get(offset, length)

    def _get(self, offset: int, length: int) -> bytes:
        span = {"Range": f"bytes={offset}-{offset + length - 1}"}
        request = urllib.request.Request(self._url, headers={**self._headers, **span})  # noqa: S310
        try:
            with open_web(request) as answer:
                if answer.status != 206:
                    raise self._no_ranges()
                self._look(answer.headers, offset)
                return self._body(answer, min(length, self.size - offset))
        except urllib.error.HTTPError as exc:
            raise self._failed(f"HTTP {exc.code} {exc.reason}", exc.code) from exc
        except urllib.error.URLError as exc:
            raise self._failed(str(exc.reason)) from exc
        except OSError as exc:
            raise self._failed(exc.strerror or str(exc)) from exc
        except http.client.HTTPException as exc:
            raise self._failed(f"no HTTP, or not all of it: {exc!r}") from exc

    def _look(self, headers: Message, offset: int) -> None:
        """Size and version, and whether it is the part that was asked for (RFC 9110, 14.4)."""
        told = headers.get("Content-Range") or ""
        found = CONTENT_RANGE.fullmatch(told.strip())
        if found is None:
            raise self._failed("the server does not tell the size of the file")
        if int(found[1]) != offset:
            raise self._failed(f"byte {offset} was asked for, and the server sends {told!r}")
        size = int(found[2])
        if self.size not in (0, size):
            raise self._failed(f"it had {self.size} bytes, and now has {size}: is it written?")
        self.size, self.version = size, version(headers)

    def _body(self, answer: http.client.HTTPResponse, length: int) -> bytes:
        """All of it, however slowly it comes; what is missing is not the end of the file."""
        found = bytearray()
        while len(found) < length and (piece := answer.read1(length - len(found))):
            self._cancel.check()
            found += piece
        if len(found) < length:
            raise self._failed(f"the connection was closed, after {len(found)} of {length} bytes")
        return bytes(found)

    def _no_ranges(self) -> SourceError:
        return SourceError(
            f"{self.name}: the web server cannot send parts of a file (no support for Range)",
            id="http-no-ranges",
            hint="download the file first, and give the local copy",
        )

    def _failed(self, cause: str, code: int = 0) -> SourceError:
        return unreachable(self.name, cause, code)


def unreachable(url: str, cause: str, code: int = 0) -> SourceError:
    """`code` is the HTTP status, where there was one."""
    hints = {
        401: "the server wants a user and a password: http://USER@HOST/... and -ip FILE",
        403: "the server does not let you read it",
        404: "is the address right?",
        416: "the file is empty",
    }
    return SourceError(
        f"cannot read {url}: {cause}",
        id="http-unreachable",
        hint=hints.get(code, "is the address right, and the server running?"),
    )


def version(headers: Message) -> str:
    """Servers that share the work often have tags of their own for the same file; dates agree."""
    return headers.get("Last-Modified") or headers.get("ETag") or ""


def split_user(url: str) -> tuple[str, str | None]:
    """The URL without the user, and the user. A password in a URL is refused.

    The rest stays as it is written: %2F in it may be something else than a slash.
    """
    user, parts = parse(url).user, urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), user


def authorization(user: str | None, password_file: Path | None) -> dict[str, str]:
    if user is None or password_file is None:
        return {}
    login = f"{user}:{read_password(password_file)}"
    token = base64.b64encode(login.encode("utf-8", "surrogateescape")).decode()
    return {"Authorization": f"Basic {token}"}
