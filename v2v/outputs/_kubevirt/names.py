"""Names as Kubernetes takes them, from guests' names, which may hold anything."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from v2v.outputs._files import disk_suffix

# A label of RFC 1123 has 63 characters; "-sdiv" of the 256th disk comes behind it. KubeVirt puts a
# VM's name into labels, so that it cannot be as long as other names of Kubernetes.
MAX_NAME = 58
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

JOB_LABEL = "v2v-job"  # on all that a job makes in a cluster, and on nothing else


def kube_name(name: str) -> str:
    """The name as an RFC 1123 label. Different names may become the same."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return label[:MAX_NAME].strip("-") or "vm"


def disk_name(name: str, index: int) -> str:
    """The name of a guest's disk: web-sda. `name` is one of `kube_name`."""
    return f"{name}-{disk_suffix(index)}"


def job_label(job_id: str) -> str:
    """The value of JOB_LABEL."""
    if LABEL_VALUE.fullmatch(job_id):
        return job_id
    return hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]
