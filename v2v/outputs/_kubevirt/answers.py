"""What servers answer, read with care; and what they refuse, as our errors."""

from __future__ import annotations

import json
import ssl
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._kubevirt import Object
from v2v.texts import clean, clean_name

MAX_WORDS = 500  # characters of what a server says


class NotThere(TargetError):
    """404: there is no such object, or no such kind or namespace."""


def value(obj: Any, *path: str) -> Any:
    """What is at a path in an answer; None where there is nothing."""
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def text(obj: Any, *path: str) -> str:
    """The same as a word that may be shown."""
    found = value(obj, *path)
    return clean(found[:MAX_WORDS]).strip() if isinstance(found, str) else ""


def name_of(obj: Object) -> str:
    found = value(obj, "metadata", "name")
    return found if isinstance(found, str) else ""


def refusal(server: str, namespace: str, exc: Any) -> TargetError:
    """`exc`: the library's ApiException."""
    words = _told(exc)
    match exc.status:
        case 401:
            return TargetError(
                f"{server} does not know the token or certificate",
                id="target-login",
                hint="tokens expire: `kubectl create token ACCOUNT` makes a new one for -op",
            )
        case 403 if "exceeded quota" in words:
            return quota_error(namespace, words)
        case 403:
            return TargetError(
                f"{server} forbids it: {words}",
                id="target-forbidden",
                hint="the administrator of the cluster grants it, by a RoleBinding in the "
                f"namespace {namespace}",
            )
        case 404:
            return NotThere(
                f"{server}: {words}",
                id="target-refused",
                hint=f"is the namespace {namespace} still there, and are KubeVirt and CDI?",
            )
        case 409:
            return TargetError(
                f"{server}: {words}",
                id="target-exists",
                hint="give the guest another name with -on",
            )
        case status if status and status < 500 and status != 429:
            return TargetError(
                f"{server} refuses: {words}",
                id="target-refused",
                hint="-o kubevirt -os FOLDER, without a cluster, writes manifests to be changed",
            )
    return unreachable(server, f"{exc.status}: {words}")


def unreachable(server: str, why: str) -> TargetError:
    return TargetError(
        f"{server} cannot be reached: {clean_name(why)}",
        id="target-unreachable",
        hint="see to the address and the network; a job that began is continued by `v2v resume`",
    )


def no_kubernetes(server: str) -> TargetError:
    return TargetError(
        f"{server} does not answer as the API of Kubernetes does",
        id="target-answer",
        hint="see to the address; `kubectl cluster-info` shows it",
    )


def untrusted(server: str, why: str, flag: str) -> TargetError:
    return TargetError(
        f"{server}: its certificate is not trusted: {clean_name(why)}",
        id="target-untrusted",
        hint=f"{flag}=FILE names the certificates of who signed it; -oo verifypeer=no trusts any",
    )


def connection_error(server: str, exc: BaseException, flag: str) -> TargetError:
    """What kept us from talking to a server; `flag` names certificates that it is trusted by."""
    for one in _causes(exc):
        if isinstance(one, ssl.SSLCertVerificationError):
            return untrusted(server, one.verify_message, flag)
    reason = _causes(exc)[-1]
    return unreachable(server, str(getattr(reason, "strerror", None) or reason or type(reason)))


def quota_error(namespace: str, words: str) -> TargetError:
    return TargetError(
        f"the quota of the namespace {namespace} does not allow it: {words}",
        id="target-space",
        hint="`kubectl describe quota` shows it; choose another namespace with -oo namespace, or "
        "have it raised",
    )


def _causes(exc: BaseException) -> list[BaseException]:
    """The error, and what it came from: the libraries keep that in several places."""
    found = [exc]
    while len(found) < 10:
        last = found[-1]
        inner = getattr(last, "reason", None)
        inner = (
            inner
            if isinstance(inner, BaseException)
            else next((one for one in last.args if isinstance(one, BaseException)), None)
        )
        inner = inner or last.__cause__
        if inner is None or inner in found:
            break
        found.append(inner)
    return found


def _told(exc: Any) -> str:
    """What the API says is wrong."""
    try:
        told = text(json.loads(exc.body or ""), "message")
    except (ValueError, TypeError):
        told = ""
    return told or clean(str(exc.reason or exc.status))[:MAX_WORDS]
