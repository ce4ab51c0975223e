"""The bytes of a file from its first to its last, on this host or a web server without Range."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.image.magic import HEAD
from v2v.image.reader import FileReader
from v2v.inputs._details import is_uri
from v2v.inputs._serve.http import authorization, open_web, split_user, unreachable, version
from v2v.types import KiB

CHUNK = 256 * KiB  # bytes; what is packed becomes more of them


@dataclass(frozen=True, slots=True)
class Place:
    """Where an archive is: an absolute path, or a web address."""

    location: str
    password_file: Path | None = None

    @property
    def is_remote(self) -> bool:
        return is_uri(self.location)


@dataclass(frozen=True, slots=True)
class Raw:
    """`version` is what a web server tells of the file's content, if it does."""

    chunks: Iterator[bytes]
    version: str = ""


@contextmanager
def open_raw(place: Place, cancel: Cancel) -> Iterator[Raw]:
    """Read from the first byte on."""
    if place.is_remote:
        with _open_web(place) as raw:
            yield replace(raw, chunks=_checked(raw.chunks, cancel))
    else:
        with FileReader(Path(place.location)) as reader:
            yield Raw(_checked(_file_chunks(reader), cancel))


def head_of(place: Place, cancel: Cancel) -> bytes:
    """The first bytes, by which it is known."""
    found = b""
    with open_raw(place, cancel) as raw:
        while len(found) < HEAD and (chunk := next(raw.chunks, b"")):
            found += chunk
    return found[:HEAD]


def _checked(chunks: Iterator[bytes], cancel: Cancel) -> Iterator[bytes]:
    """Here, because gigabytes of what is packed may become not a single byte."""
    for chunk in chunks:
        cancel.check()
        yield chunk


def _file_chunks(reader: FileReader) -> Iterator[bytes]:
    for at in range(0, reader.size, CHUNK):
        yield reader.read(at, CHUNK)


@contextmanager
def _open_web(place: Place) -> Iterator[Raw]:
    url, user = split_user(place.location)
    request = urllib.request.Request(url, headers=authorization(user, place.password_file))  # noqa: S310
    try:
        answer = open_web(request)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise unreachable(place.location, f"HTTP {exc.code} {exc.reason}", exc.code) from exc
    except urllib.error.URLError as exc:
        raise unreachable(place.location, str(exc.reason)) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise unreachable(place.location, str(exc)) from exc
    with answer:
        yield Raw(_web_chunks(answer, place.location), version(answer.headers))


def _web_chunks(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    """What the server sends; when that is less than it said, the connection was lost."""
    left = answer.length
    at = 0
    while True:
        try:
            chunk = answer.read1(CHUNK)  # what is there, however little
        except (OSError, http.client.HTTPException) as exc:
            raise _lost(url, at, str(exc)) from exc
        if not chunk:
            break
        at += len(chunk)
        yield chunk
    if left is not None and at < left:
        raise _lost(url, at, "the connection was closed")


def _lost(url: str, at: int, why: str) -> SourceError:
    return unreachable(url, f"{why}, after {at} bytes")
