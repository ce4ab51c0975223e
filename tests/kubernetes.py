"""A cluster for tests, and what -o kubevirt needs to know of it."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from tests.fakes.kubernetes.cluster import Fake, kubernetes

__all__ = ["Fake", "kubernetes", "words", "write_kubeconfig"]


def words(fake: Fake, staging: Path, **more: str) -> dict[str, str]:
    """The options that reach the cluster by -oc; `more` with `_` for `-` goes to -oo."""
    token = fake.folder / "token"
    token.write_text(f"{fake.token}\n")
    return {
        "-oc": fake.server,
        "-op": str(token),
        "-oo cafile": str(fake.certificate.cafile),
        "-oo upload-cafile": str(fake.proxy_certificate.cafile),
        "-oo staging": str(staging),
        **{f"-oo {key.replace('_', '-')}": word for key, word in more.items()},
    }


def write_kubeconfig(fake: Fake, path: Path, *, namespace: str = "vms") -> Path:
    """With all certificates and keys inside, as many tools write it."""

    def inside(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    pem = fake.certificate.file
    user = {
        "token": fake.token,
        "client-certificate-data": inside(pem),
        "client-key-data": inside(pem),
    }
    authority = inside(fake.certificate.cafile)
    cluster = {"server": fake.server, "certificate-authority-data": authority}
    context = {"cluster": "test", "user": "tester", "namespace": namespace}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "tester", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
