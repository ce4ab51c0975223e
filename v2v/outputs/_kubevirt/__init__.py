"""What -o kubevirt is made of: manifests, and a cluster that they and the disks are sent to."""

from __future__ import annotations

from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]  # of Kubernetes: apiVersion, kind, metadata, spec, status
