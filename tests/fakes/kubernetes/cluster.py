"""A small Kubernetes with KubeVirt and CDI: the parts of their APIs that v2v speaks.

https://kubernetes.io/docs/reference/using-api/api-concepts/. Objects are checked against a
schema, as the real server checks them against its own. A DataVolume is ready for an image at once,
if it does not wait for its first consumer.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.kubernetes.proxy import proxy_handler
from tests.fakes.kubernetes.schema import problems
from tests.fakes.kubernetes.server import Handler, serve
from tests.fakes.vsphere.certificates import Certificate, certificate

CHECKED = ("datavolumes", "virtualmachines")
MI = 1024 * 1024
IMMEDIATE = "cdi.kubevirt.io/storage.bind.immediate.requested"


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Fake:
    """What the cluster has, and what goes wrong in it. Images are in `folder`."""

    folder: Path
    certificate: Certificate
    proxy_certificate: Certificate
    server: str = ""
    proxy: str = ""
    token: str = "letmein-0123456789"
    groups: set[str] = field(
        default_factory=lambda: {"kubevirt.io", "cdi.kubevirt.io", "upload.cdi.kubevirt.io"}
    )
    namespaces: set[str] = field(default_factory=lambda: {"default", "vms"})
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # token: namespace, claim
    denied: set[str] = field(default_factory=set)  # plurals, or "VERB plural"
    refusal: str = ""  # of VMs
    quota: dict[str, str] | None = None
    requests: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)  # claims, of each POST that came in
    # Faults
    phase: str = "UploadReady"  # of a new DataVolume
    conditions: list[dict[str, str]] = field(default_factory=list)
    labels_claims: bool = True  # claims get their DataVolume's labels
    silence: threading.Event = field(default_factory=set_event)  # until then no proxy answers
    told_proxy: bool = True  # CDI knows its proxy's address
    asynchronous: bool = True  # the proxy has /upload-async
    cut: list[int] = field(default_factory=list)  # after how many bytes uploads are cut off
    answers: list[tuple[int, str]] = field(default_factory=list)  # to uploads, before good ones
    broken: int = 0  # how many conversions fail
    evicted: int = 0  # how many pods are replaced while they convert
    shrunk: int = 0  # bytes that volumes are smaller than asked for
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, plural: str, namespace: str, name: str, **content: Any) -> None:
        metadata = {"name": name, "namespace": namespace, **content.pop("metadata", {})}
        self.objects[plural, namespace, name] = {"metadata": metadata, **content}

    def names(self, plural: str, namespace: str = "default") -> list[str]:
        return sorted(n for p, ns, n in self.objects if (p, ns) == (plural, namespace))

    def image(self, name: str, namespace: str = "default") -> Path:
        return self.folder / f"{namespace}-{name}.img"

    # What the controllers do ----------------------------------------------------------------------

    def create(
        self, plural: str, namespace: str, body: dict[str, Any], *, dry_run: bool = False
    ) -> tuple[int, Any]:
        if plural in self.denied:
            return 403, failure(403, f"{plural} is forbidden: no right")
        if plural == "selfsubjectaccessreviews":
            wanted = body["spec"]["resourceAttributes"]
            asked = {wanted["resource"], f"{wanted['verb']} {wanted['resource']}"}
            return 201, {**body, "status": {"allowed": not asked & self.denied}}
        if plural == "uploadtokenrequests":
            token = f"token-{len(self.tokens)}." + 900 * "x"  # they are long
            self.tokens[token] = namespace, body["spec"]["pvcName"]
            return 201, {**body, "status": {"token": token}}
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.objects:
            return 409, failure(409, f'{plural} "{name}" already exists')
        if plural in CHECKED and (wrong := problems(body)):
            return 422, failure(422, f"{plural} is invalid: {wrong}")
        if plural == "virtualmachines" and self.refusal:
            return 422, failure(422, f"admission webhook denied the request: {self.refusal}")
        if dry_run:
            return 201, body
        self.objects[plural, namespace, name] = body
        if plural == "datavolumes":
            self._bind(namespace, name, body)
        return 201, body

    def _bind(self, namespace: str, name: str, volume: dict[str, Any]) -> None:
        conditions = self.conditions or [running("2026-01-01T00:00:00Z")]
        bound = IMMEDIATE in volume["metadata"]["annotations"]
        phase = self.phase if bound else "WaitForFirstConsumer"
        volume["status"] = {"phase": phase, "restartCount": 0, "conditions": conditions}
        labels = volume["metadata"].get("labels", {}) if self.labels_claims else {}
        self.put("persistentvolumeclaims", namespace, name, metadata={"labels": labels})

    def delete(self, plural: str, namespace: str, name: str) -> None:
        self.objects.pop((plural, namespace, name), None)
        if plural == "datavolumes":
            self.objects.pop(("persistentvolumeclaims", namespace, name), None)
            self.image(name, namespace).unlink(missing_ok=True)

    def fill(self, namespace: str, name: str, sent: Path) -> tuple[int, str]:
        """What CDI does with an image."""
        volume = self.objects["datavolumes", namespace, name]
        asked = volume["spec"]["storage"]["resources"]["requests"]["storage"]
        room = int(asked.removesuffix("Mi")) * MI - self.shrunk
        info = json.loads(output("qemu-img", "info", "--output=json", sent))
        if info["virtual-size"] > room:
            return 400, (
                f"Saving stream failed: Virtual image size {info['virtual-size']} is larger than "
                f"the reported available storage {room}. A larger PVC is required."
            )
        if self.broken:
            self.broken -= 1
            volume["status"]["restartCount"] += 1
            return 200, ""
        if self.evicted:
            self.evicted -= 1
            volume["status"]["conditions"] = [running("2026-01-01T00:00:09Z")]
            return 200, ""
        image = self.image(name, namespace)
        output("qemu-img", "convert", "-f", info["format"], "-O", "raw", sent, image)
        output("qemu-img", "resize", "-q", "-f", "raw", image, str(room))
        volume["status"]["phase"] = "Succeeded"
        return 200, ""

    # What is there --------------------------------------------------------------------------------

    def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        if plural == "cdiconfigs":
            told = {"uploadProxyURL": self.proxy.removeprefix("https://")}
            return {"metadata": {"name": name}, "status": told if self.told_proxy else {}}
        if plural == "namespaces":
            return {"metadata": {"name": name}} if name in self.namespaces else None
        return self.objects.get((plural, namespace, name))

    def list(self, plural: str, namespace: str, labels: str) -> list[dict[str, Any]]:
        if plural == "resourcequotas":
            status = {"hard": self.quota, "used": {}}
            return [{"metadata": {"name": "compute"}, "status": status}] if self.quota else []
        key, _, word = labels.partition("=")
        return [
            one
            for (p, ns, _), one in self.objects.items()
            if (p, ns) == (plural, namespace)
            and (not labels or one["metadata"].get("labels", {}).get(key) == word)
        ]


def output(*argv: object) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


def running(since: str) -> dict[str, str]:
    return {"type": "Running", "status": "True", "lastTransitionTime": since}


def failure(code: int, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": code,
    }


def api_handler(fake: Fake) -> type[Handler]:
    class Api(Handler):
        def do_GET(self) -> None:
            self._do()

        do_POST = do_DELETE = do_GET

        def _do(self) -> None:
            body = self.body()
            fake.requests.append(f"{self.command} {self.path}")
            if self.headers.get("Authorization") != f"Bearer {fake.token}":
                self.answer(401, failure(401, "Unauthorized"))
                return
            with fake.lock:
                self.answer(*self._result(body))

        def _result(self, body: bytes) -> tuple[int, Any]:
            parts = urlsplit(self.path)
            words = parts.path.strip("/").split("/")
            if words == ["apis"]:
                version = {"groupVersion": "x/v1", "version": "v1"}
                groups = [
                    {"name": g, "versions": [version], "preferredVersion": version}
                    for g in sorted(fake.groups)
                ]
                return 200, {"kind": "APIGroupList", "groups": groups}
            rest = words[3:] if words[0] == "apis" else words[2:]
            namespace = ""
            if rest[0] == "namespaces" and len(rest) > 2:
                namespace, rest = rest[1], rest[2:]
            plural, name = rest[0], rest[1] if len(rest) > 1 else ""
            query = parse_qs(parts.query)
            if self.command == "POST":
                dry_run = query.get("dryRun") == ["All"]
                return fake.create(plural, namespace, json.loads(body), dry_run=dry_run)
            if not name:
                labels = query.get("labelSelector", [""])[0]
                return 200, {"kind": "List", "items": fake.list(plural, namespace, labels)}
            found = fake.get(plural, namespace, name)
            if found is None:
                return 404, failure(404, f'{plural} "{name}" not found')
            if self.command == "DELETE":
                fake.delete(plural, namespace, name)
                return 200, {"kind": "Status", "status": "Success"}
            return 200, found

    return Api


@contextmanager
def kubernetes(folder: Path) -> Iterator[Fake]:
    """A cluster with two storage classes, until the block ends; `folder` is its own."""
    folder.mkdir()
    fake = Fake(
        folder,
        certificate(folder, name="api"),
        certificate(folder, name="proxy"),
    )
    default = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    fake.put("storageclasses", "", "standard", metadata=default)
    fake.put("storageclasses", "", "fast")
    modes = [{"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"}]
    for name in ("standard", "fast"):
        fake.put("storageprofiles", "", name, status={"claimPropertySets": modes})
    with (
        serve(api_handler(fake), fake.certificate) as fake.server,
        serve(proxy_handler(fake), fake.proxy_certificate) as fake.proxy,
    ):
        yield fake
