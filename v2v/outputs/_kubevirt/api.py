"""The API of a cluster: objects are plain dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from v2v.cancel import Cancel
from v2v.errors import TargetError
from v2v.outputs._kubevirt import Object
from v2v.outputs._kubevirt.answers import (
    NotThere,
    connection_error,
    no_kubernetes,
    refusal,
    value,
)
from v2v.outputs._kubevirt.login import log_in
from v2v.outputs._kubevirt.options import KubevirtOptions
from v2v.patience import in_thread

T = TypeVar("T")

TIMEOUT = (10.0, 60.0)  # seconds to connect, and to wait for more of an answer
CALL_SECONDS = 120.0
MANY = 500  # objects that a list gives at most


@dataclass(frozen=True, slots=True)
class Kind:
    group: str  # empty: the core
    version: str
    plural: str
    namespaced: bool = True


MACHINES = Kind("kubevirt.io", "v1", "virtualmachines")
VOLUMES = Kind("cdi.kubevirt.io", "v1beta1", "datavolumes")
TOKENS = Kind("upload.cdi.kubevirt.io", "v1beta1", "uploadtokenrequests")
CLAIMS = Kind("", "v1", "persistent_volume_claim")
QUOTAS = Kind("", "v1", "resource_quota")
NETWORKS = Kind("k8s.cni.cncf.io", "v1", "network-attachment-definitions")
STORAGE_CLASSES = Kind("storage.k8s.io", "v1", "storageclasses", namespaced=False)
CDI_CONFIGS = Kind("cdi.kubevirt.io", "v1beta1", "cdiconfigs", namespaced=False)
PROFILES = Kind("cdi.kubevirt.io", "v1beta1", "storageprofiles", namespaced=False)
REVIEWS = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False)


class Cluster:
    """One namespace of a cluster. Answers are hostile: `value` reads them."""

    def __init__(self, client: Any, server: str, namespace: str, cancel: Cancel | None) -> None:
        from kubernetes.client import ApisApi, CoreV1Api, CustomObjectsApi

        self.server = server
        self.namespace = namespace
        self._client = client
        self._cancel = cancel
        self._core = CoreV1Api(client)
        self._custom = CustomObjectsApi(client)
        self._apis = ApisApi(client)

    def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object | None:
        """None when it is not there."""
        where = namespace or self.namespace
        if not kind.group:
            read = getattr(self._core, f"read_namespaced_{kind.plural}")
            return self._found(lambda: self._plain(read(name, where, _request_timeout=TIMEOUT)))
        path = (kind.group, kind.version, *([where] if kind.namespaced else []), kind.plural, name)
        get = self._custom_call("get", kind)
        return self._found(lambda: self._plain(get(*path, _request_timeout=TIMEOUT)))

    def list(self, kind: Kind, *, labels: str = "") -> list[Object]:
        """MANY of them at most; none when there is no such kind."""
        more = {"limit": MANY, "label_selector": labels, "_request_timeout": TIMEOUT}
        if not kind.group:
            ask = getattr(self._core, f"list_namespaced_{kind.plural}")
            found = self._found(lambda: self._plain(ask(self.namespace, **more)))
        else:
            where = [self.namespace] if kind.namespaced else []
            ask = self._custom_call("list", kind)
            path = (kind.group, kind.version, *where, kind.plural)
            found = self._found(lambda: self._plain(ask(*path, **more)))
        items = (found or {}).get("items")
        return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []

    def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        """TargetError `target-exists` when the name is taken. In a dry run all is checked, and
        nothing made."""
        where = [self.namespace] if kind.namespaced else []
        make = self._custom_call("create", kind)
        path = (kind.group, kind.version, *where, kind.plural, body)
        more = {"dry_run": "All"} if dry_run else {}
        return self._call(lambda: self._plain(make(*path, **more, _request_timeout=TIMEOUT)))

    def delete(self, kind: Kind, name: str) -> None:
        """It may be gone already."""
        if not kind.group:
            remove = getattr(self._core, f"delete_namespaced_{kind.plural}")
            # The answer may be the object or a Status, of which the library expects one.
            more = {"_request_timeout": TIMEOUT, "_preload_content": False}
            self._found(lambda: remove(name, self.namespace, **more))
            return
        remove = self._custom_call("delete", kind)
        path = (kind.group, kind.version, self.namespace, kind.plural, name)
        self._found(lambda: remove(*path, _request_timeout=TIMEOUT))

    def groups(self) -> set[str]:
        """The API groups that there are."""
        answer = self._found(
            lambda: self._plain(self._apis.get_api_versions(_request_timeout=TIMEOUT))
        )
        if answer is None:
            raise no_kubernetes(self.server)
        groups = answer.get("groups")
        return {str(value(one, "name")) for one in groups} if isinstance(groups, list) else set()

    def namespace_exists(self) -> bool:
        """True, too, if that is not ours to know."""
        read = self._core.read_namespace
        try:
            return (
                self._found(lambda: self._plain(read(self.namespace, _request_timeout=TIMEOUT)))
                is not None
            )
        except TargetError as exc:
            if exc.id != "target-forbidden":
                raise
            return True

    def may(self, verb: str, kind: Kind) -> bool:
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": kind.group,
            "resource": kind.plural,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return value(self.create(REVIEWS, body), "status", "allowed") is True

    def _custom_call(self, verb: str, kind: Kind) -> Callable[..., Any]:
        scope = "namespaced" if kind.namespaced else "cluster"
        call: Callable[..., Any] = getattr(self._custom, f"{verb}_{scope}_custom_object")
        return call

    def _plain(self, answer: Any) -> Object:
        plain = self._client.sanitize_for_serialization(answer)
        if not isinstance(plain, dict):
            raise no_kubernetes(self.server)
        return plain

    def _found(self, action: Callable[[], T]) -> T | None:
        try:
            return self._call(action)
        except NotThere:
            return None

    def _call(self, action: Callable[[], T]) -> T:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return in_thread(action, name="kubernetes", seconds=CALL_SECONDS, cancel=self._cancel)
        except ApiException as exc:
            raise refusal(self.server, self.namespace, exc) from exc
        except (HTTPError, OSError) as exc:  # TimeoutError is one
            raise connection_error(self.server, exc, "-oo cafile") from exc
        except ValueError as exc:  # no JSON, or a model that does not fit
            raise no_kubernetes(self.server) from exc


@contextmanager
def open_cluster(options: KubevirtOptions, cancel: Cancel | None) -> Iterator[Cluster]:
    with log_in(options, cancel) as login:
        yield Cluster(login.client, login.server, login.namespace, cancel)
