"""How a cluster's API is reached and who asks: from -oc and a token, or from a kubeconfig."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2v.errors import TargetError, UsageError
from v2v.optional import require
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.password import output_password
from v2v.texts import clean_name

DEFAULT_NAMESPACE = "default"
CERTIFICATES = ("certificate-authority", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True)
class Login:
    client: Any  # kubernetes.client.ApiClient
    server: str
    namespace: str


@contextmanager
def log_in(options: KubevirtOptions) -> Iterator[Login]:
    """A client of the API; nothing is sent yet. It works within the block."""
    module = require("kubernetes.client", extra="kubevirt", purpose="-o kubevirt")
    with ExitStack() as stack:
        if options.kubeconfig is not None:
            client, namespace = _from_kubeconfig(options.kubeconfig, options, stack)
        else:
            client, namespace = _from_token(module, options), DEFAULT_NAMESPACE
        stack.callback(client.rest_client.close)
        yield Login(client, client.configuration.host, options.namespace or namespace)


def check_cafile(flag: str, file: Path | None) -> None:
    """UsageError for a file that holds no certificates."""
    if file is None:
        return
    try:
        ssl.create_default_context(cafile=file)
    except OSError as exc:  # ssl.SSLError is one
        raise UsageError(
            f"{flag} {file}: {exc.strerror or 'holds no certificates'}",
            id="tls-files",
            hint="name a file of certificates in PEM",
        ) from exc


def _from_token(module: Any, options: KubevirtOptions) -> Any:
    import urllib3

    check_cafile("-oo cafile", options.cafile)
    configuration = module.Configuration(host=str(options.server).rstrip("/"))
    configuration.ssl_ca_cert = str(options.cafile) if options.cafile else None
    configuration.verify_ssl = options.verifypeer
    configuration.retries = urllib3.Retry(0)
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
    return module.ApiClient(configuration, "Authorization", f"Bearer {token}")


def _from_kubeconfig(file: Path, options: KubevirtOptions, stack: ExitStack) -> tuple[Any, str]:
    """The client, and the namespace of the context."""
    import urllib3

    module = require("kubernetes.client", extra="kubevirt", purpose="-o kubevirt")
    config = require("kubernetes.config", extra="kubevirt", purpose="-o kubevirt")
    content = _read(file)
    configuration = module.Configuration()
    configuration.retries = urllib3.Retry(0)
    try:
        context = _context(content, options.context)
        _certificates_in_memory(content, file.parent, stack)
        config.load_kube_config_from_dict(
            content, context["name"], client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UsageError(
            f"-oo kubeconfig {file}: {_why(exc)}",
            id="kubevirt-kubeconfig",
            hint="try it with: kubectl --kubeconfig=FILE get vm",
        ) from exc
    if not options.verifypeer:
        configuration.verify_ssl = False
    return module.ApiClient(configuration), context["context"].get("namespace", DEFAULT_NAMESPACE)


def _why(exc: Exception) -> str:
    """The library's own words; others might repeat what is secret in the file."""
    told = type(exc).__name__ in ("ConfigException", "LookupError")
    return clean_name(str(exc)) if told else "it is not as a kubeconfig is"


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except OSError as exc:
        raise UsageError(
            f"-oo kubeconfig {file}: {exc.strerror}", id="kubevirt-kubeconfig"
        ) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UsageError(f"-oo kubeconfig {file}: it is no YAML", id="kubevirt-kubeconfig") from exc
    if not isinstance(content, dict):
        raise UsageError(f"-oo kubeconfig {file}: it is no kubeconfig", id="kubevirt-kubeconfig")
    return content


def _context(content: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    name = wanted or content.get("current-context")
    for context in content["contexts"]:
        if context["name"] == name:
            namespace = context["context"].get("namespace")
            return {"name": name, "context": {"namespace": namespace or DEFAULT_NAMESPACE}}
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
    try:
        content = base64.b64decode(data)
    except binascii.Error as exc:
        raise ValueError("a certificate is not base64") from exc
    fd = os.memfd_create("v2v-kubeconfig")
    stack.callback(os.close, fd)
    os.write(fd, content)
    return f"/proc/self/fd/{fd}"


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
