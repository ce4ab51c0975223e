"""Images sent to volumes, until CDI has filled them.

A token is good for five minutes, in which a POST must begin; what breaks is sent again from its
beginning, with a new one.
"""

from __future__ import annotations

import re
from pathlib import Path

from v2v.errors import TargetError
from v2v.outputs._kubevirt import volumes
from v2v.outputs._kubevirt.answers import value
from v2v.outputs._kubevirt.api import TOKENS, VOLUMES, Cluster
from v2v.outputs._kubevirt.proxy import Proxy, TryAgainError
from v2v.outputs._staged import OutgoingFile
from v2v.run import Run

PAUSES = (0.0, 2.0, 10.0, 30.0)  # seconds before each further try
TAKEN = "kubevirt-taken:{}"  # journal: the pod of CDI that has this disk's image
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")  # RFC 6750; they are longer than a line


def upload(cluster: Cluster, proxy: Proxy, path: Path, name: str, index: int, run: Run) -> None:
    """Fill the volume `name` with the image at `path`, of disk `index`. Safe to repeat."""
    why = ""
    for pause in (None, *PAUSES):
        if pause is not None:
            run.warn(
                f"disk {index + 1} did not get to {name}, and is sent again: {why}",
                id="kubevirt-sent-again",
            )
            run.cancel.wait(pause)
        if not volumes.wait_until_ready(cluster, name, run):
            return
        why = _fill(cluster, proxy, path, name, index, run)
        if not why:
            return
    raise TargetError(
        f"disk {index + 1} could not be sent to the volume {cluster.namespace}/{name}: {why}",
        id="kubevirt-upload",
        hint=f"its image is kept: `v2v resume {run.job_id}` sends it again, once that is repaired",
    )


def _fill(cluster: Cluster, proxy: Proxy, path: Path, name: str, index: int, run: Run) -> str:
    """Why it is to be tried again; empty when the volume is filled. While CDI converts what an
    earlier run has sent, it takes nothing: that is waited for."""
    key = TAKEN.format(index)
    if key not in run.journal:
        pod = volumes.pod_of(cluster.get(VOLUMES, name))
        try:
            with OutgoingFile(path, index, run) as file:
                proxy.send(_token(cluster, name), file, run)
        except TryAgainError as exc:
            return str(exc)
        run.journal.put(key, pod)
    if volumes.wait_until_filled(cluster, name, run.journal.get(key, volumes.Pod), run):
        return ""
    run.journal.drop([key])
    words = volumes.last_words(cluster.get(VOLUMES, name))
    return words or "CDI could not convert it, or its pod was evicted"


def _token(cluster: Cluster, name: str) -> str:
    body = {
        "apiVersion": "upload.cdi.kubevirt.io/v1beta1",
        "kind": "UploadTokenRequest",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {"pvcName": name},
    }
    token = value(cluster.create(TOKENS, body), "status", "token")
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise TargetError(
            f"{cluster.server} gave no token to send an image with",
            id="target-refused",
            hint="is CDI's apiserver well? see `kubectl get pods -A | grep cdi`",
        )
    return str(token)
