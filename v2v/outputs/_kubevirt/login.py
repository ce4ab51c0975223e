"""How a cluster's API is reached and who asks: from -oc and a token, or from a kubeconfig."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from v2v.cancel import Cancel
from v2v.errors import HostError, UsageError
from v2v.optional import require
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.outputs._tls import check_cafile
from v2v.password import hide_passwords, output_password
from v2v.patience import in_thread
from v2v.texts import clean_name
from v2v.types import MiB

LIBRARY = 37  # major version of the client library from which on answers can be read piecemeal
DEFAULT_NAMESPACE = "default"
PROGRAM_SECONDS = 120.0  # that a program of the kubeconfig may take to give a token
MAX_ANSWER = 32 * MiB  # bytes; the longest is a list of some hundred objects
CERTIFICATES = ("certificate-authority", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True)
class Login:
    client: Any  # kubernetes.client.ApiClient
    server: str
    namespace: str


@contextmanager
def log_in(options: KubevirtOptions, cancel: Cancel | None) -> Iterator[Login]:
    """A client of the API; nothing is sent yet. It works within the block."""
    _check_library()
    with ExitStack() as stack:
        if options.kubeconfig is not None:
            client, namespace = _from_kubeconfig(options.kubeconfig, options, stack, cancel)
        else:
            client, namespace = _from_token(options), DEFAULT_NAMESPACE
        stack.callback(client.rest_client.close)
        yield Login(client, client.configuration.host, options.namespace or namespace)


def _check_library() -> None:
    found = require("kubernetes", extra="kubevirt", purpose="-o kubevirt").__version__
    if int(found.partition(".")[0]) < LIBRARY:
        raise HostError(
            f"-o kubevirt needs the Python module kubernetes of version {LIBRARY}, this is {found}",
            id="binding-missing",
            hint="pip install --upgrade 'v2v[kubevirt]'",
        )


def _from_token(options: KubevirtOptions) -> Any:
    from kubernetes.client import Configuration

    check_cafile("-oo cafile", options.cafile)
    configuration = Configuration(host=str(options.server).rstrip("/"))
    configuration.ssl_ca_cert = str(options.cafile) if options.cafile else None
    token = (output_password(options.token, what=str(options.server)) or "").strip()
    if not token:
        raise UsageError(
            f"{options.server} wants a token",
            id="option-required",
            hint="-op FILE names a file that holds one; `kubectl create token ACCOUNT` makes one",
        )
    if not token.isascii() or not token.isprintable():
        raise UsageError(
            "-op: that is no token: it holds characters that none has",
            id="password-file",
            hint="name a file whose first line is the token",
        )
    return _client(configuration, options, "Authorization", f"Bearer {token}")


def _client(configuration: Any, options: KubevirtOptions, *header: str) -> Any:
    import urllib3
    from kubernetes.client import ApiClient

    configuration.retries = urllib3.Retry(0)  # what may be asked again is known better above
    if not options.verifypeer:
        configuration.verify_ssl = False
    if not configuration.verify_ssl:  # as the user wants it
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    client = ApiClient(configuration, *header)
    client.rest_client.request = partial(_bounded, client.rest_client.request)
    return client


def _bounded(request: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """The library itself would read whatever comes. ValueError, as for all that is no answer."""
    answer = request(*args, **more)
    answer.data = answer.response.read(MAX_ANSWER + 1)
    if len(answer.data) > MAX_ANSWER:
        answer.response.close()
        raise ValueError(f"more than {MAX_ANSWER} bytes")
    return answer


def _from_kubeconfig(
    file: Path, options: KubevirtOptions, stack: ExitStack, cancel: Cancel | None
) -> tuple[Any, str]:
    """The client, and the namespace of the context. A kubeconfig may name a program that gives a
    token, which the library starts."""
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_kube_config_from_dict
    from urllib3.exceptions import HTTPError

    hide_passwords()
    _silence(stack)
    content, configuration = _read(file), Configuration()
    try:
        name, namespace, user = _context(content, options.context)
        _certificates_in_memory(content, file.parent, stack)
        load = partial(
            load_kube_config_from_dict,
            content,
            name,
            client_configuration=configuration,
            persist_config=False,
        )
        in_thread(load, name="kubeconfig", seconds=PROGRAM_SECONDS, cancel=cancel)
    except TimeoutError as exc:
        raise _no_kubeconfig(file, "the program that it names gives no token") from exc
    except HTTPError as exc:
        raise _no_kubeconfig(file, "who gives tokens for it cannot be reached") from exc
    except OSError as exc:
        raise _no_kubeconfig(file, f"{exc.filename}: {exc.strerror}") from exc
    except (ConfigException, LookupError, TypeError, ValueError, AttributeError) as exc:
        raise _no_kubeconfig(file, _why(exc)) from exc
    if not configuration.api_key and not configuration.cert_file and _needs_help(content, user):
        raise _no_kubeconfig(file, "the program or service that it names gives no token")
    return _client(configuration, options), namespace


def _silence(stack: ExitStack) -> None:
    """The library logs what a program of the kubeconfig says as no part of itself: with that, the
    first such line would be printed, and from then on every line of any library."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    stack.callback(root.removeHandler, handler)


def _needs_help(content: dict[str, Any], user: str) -> bool:
    """Whether a program or a service gives the credentials; without them the library goes on."""
    users = [one["user"] for one in content.get("users") or () if one["name"] == user]
    return any(key in (one or {}) for one in users for key in ("exec", "auth-provider"))


def _why(exc: Exception) -> str:
    """The library's own words; others might repeat what is secret in the file."""
    told = type(exc).__name__ == "ConfigException"
    return clean_name(str(exc)) if told else "it is not as a kubeconfig is"


def _no_kubeconfig(file: Path, why: str) -> UsageError:
    return UsageError(
        f"-oo kubeconfig {file}: {why}",
        id="kubevirt-kubeconfig",
        hint="try it with: kubectl --kubeconfig=FILE get vm",
    )


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise _no_kubeconfig(file, exc.strerror or "cannot be read") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise _no_kubeconfig(file, "it is no YAML") from exc
    if not isinstance(content, dict):
        raise _no_kubeconfig(file, "it is not as a kubeconfig is")
    return content


def _context(content: dict[str, Any], wanted: str | None) -> tuple[str, str, str]:
    """Its name, its namespace and its user."""
    name = wanted or content.get("current-context")
    for one in content["contexts"]:
        if one["name"] == name:
            namespace = str(one["context"].get("namespace") or DEFAULT_NAMESPACE)
            return str(name), namespace, str(one["context"].get("user"))
    raise UsageError(
        f"-oo context: the kubeconfig has no context {clean_name(str(name))}",
        id="kubevirt-kubeconfig",
        hint="it has: " + ", ".join(clean_name(str(one["name"])) for one in content["contexts"]),
    )


def _certificates_in_memory(content: dict[str, Any], folder: Path, stack: ExitStack) -> None:
    """Certificates and keys that the kubeconfig itself holds go into files in memory.

    The library would write them into files that a killed process leaves behind. Names of files
    are made absolute, for the library does not know where the kubeconfig is.
    """
    users = [one["user"] for one in content.get("users") or ()]
    clusters = [one["cluster"] for one in content["clusters"]]
    for entry in [*users, *clusters]:
        for key in CERTIFICATES:
            if data := (entry or {}).pop(f"{key}-data", None):
                entry[key] = _in_memory(data, stack)
            elif entry and entry.get(key):
                entry[key] = str(folder / entry[key])
        if entry and entry.get("tokenFile"):
            entry["tokenFile"] = str(folder / entry["tokenFile"])


def _in_memory(data: str, stack: ExitStack) -> str:
    content = base64.b64decode("".join(data.split()), validate=True)
    fd = os.memfd_create("v2v-kubeconfig")
    stack.callback(os.close, fd)
    os.write(fd, content)
    return f"/proc/self/fd/{fd}"
