"""What goes wrong between us and a cloud, as errors of ours."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from v2v.errors import TargetError, V2VError
from v2v.texts import clean

MAX_WORDS = 300  # characters of what a server says
SEE_LOGS = "the service's log tells more; `v2v resume` goes on"
HOPELESS = ("target-unreachable", "target-login")
UNREACHABLE = "see that the address is right and the service runs; then `v2v resume` goes on"


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Errors of the libraries become ours. `what` was asked for: "Cinder: volume types"."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException
    from requests import RequestException

    try:
        yield
    except (ClientException, SDKException, RequestException) as exc:
        raise wrapped(exc, what) from exc


def all_of(actions: Iterable[Callable[[], None]]) -> None:
    """Do them all: one that fails does not keep the others undone. One error tells of all.

    Where nobody answers, or the login is refused, there is nothing to gain from going on.
    """
    errors: list[V2VError] = []
    for act in actions:
        try:
            act()
        except TargetError as exc:
            errors.append(exc)
            if exc.id in HOPELESS:
                break
    if errors:
        first, told = errors[0], "; ".join(one.message for one in errors)
        raise TargetError(told, id=first.id, hint=first.hint) from first


def raise_refusal(answer: Any) -> None:
    """For requests that the library is only told to send."""
    from openstack.exceptions import raise_from_response

    raise_from_response(answer)


def wrapped(error: Exception, what: str) -> V2VError:
    """By the first of its causes that tells something."""
    from keystoneauth1 import exceptions as keystone
    from openstack import exceptions as sdk
    from requests import exceptions as http

    chain = _chain(error)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain):
        return TargetError(
            f"{what}: the server's certificate is not trusted: {_ssl_words(chain)}",
            id="target-untrusted",
            hint="give the authority's certificate with -oo cafile=FILE",
        )
    discovering = isinstance(error, keystone.DiscoveryFailure)  # its causes are 404s and the like
    if not discovering and (status := _status(chain)) is not None:
        return _refused(status, what, _words(error))
    if any(isinstance(one, http.ContentDecodingError) for one in chain):
        return TargetError(
            f"{what}: the answer makes no sense: {_words(chain[-1])}",
            id="target-answer",
            hint="see that -oc is the address of an OpenStack",
        )
    lost = (
        keystone.ConnectFailure,
        keystone.ConnectTimeout,
        keystone.UnknownConnectionError,
        http.ConnectionError,
        http.Timeout,
        keystone.SSLError,  # a connection that breaks is one, too
        ssl.SSLError,
        TimeoutError,
    )
    if any(isinstance(one, lost) for one in chain):
        return TargetError(
            f"{what}: no answer: {_words(chain[-1])}", id="target-unreachable", hint=UNREACHABLE
        )
    missing = (keystone.EndpointNotFound, sdk.EndpointNotFound, sdk.NotSupported)
    if any(isinstance(one, missing) for one in chain):
        return no_service(what)
    if discovering:
        return TargetError(
            f"{what}: this is no Keystone: {_words(error)}",
            id="target-answer",
            hint="see that -oc or $OS_AUTH_URL is Keystone's address, such as "
            "https://cloud.example.com:5000/v3",
        )
    return TargetError(f"{what}: {_words(error)}", id="target-refused", hint=SEE_LOGS)


def no_service(what: str) -> TargetError:
    return TargetError(
        f"{what}: the cloud's catalog has no such service here",
        id="target-service",
        hint="`openstack catalog list` shows which there are; -oo os-region-name and "
        "-oo os-interface choose among them; a login without a project has none",
    )


def is_missing(error: V2VError) -> bool:
    """Whether what was asked for is not there."""
    from openstack.exceptions import NotFoundException

    chain = _chain(error)
    return _status(chain) == 404 or any(isinstance(one, NotFoundException) for one in chain)


def _refused(status: int, what: str, words: str) -> TargetError:
    if status == 401:
        return TargetError(
            f"{what}: the login is refused: {words}",
            id="target-login",
            hint="see to the user, project and domains (OS_... variables, clouds.yaml or "
            "-oo os-...), and to the password (-op)",
        )
    if status == 403:
        return TargetError(
            f"{what}: this user may not: {words}",
            id="target-forbidden",
            hint="it takes a role such as `member` in the project, and room in its quotas",
        )
    if status == 413:
        return TargetError(
            f"{what}: {words}", id="target-quota", hint="raise the project's quota, or make room"
        )
    return TargetError(f"{what}: HTTP {status}: {words}", id="target-refused", hint=SEE_LOGS)


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status that somebody answered with."""
    for one in chain:
        for name in ("http_status", "status_code"):
            if isinstance(status := getattr(one, name, None), int):
                return status
    return None


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _words(error: BaseException) -> str:
    details = getattr(error, "details", None)
    return clean(str(details or error or type(error).__name__))[:MAX_WORDS]


def _ssl_words(chain: list[BaseException]) -> str:
    for one in chain:
        if words := getattr(one, "verify_message", None):
            return clean(str(words))
    return _words(chain[-1])
