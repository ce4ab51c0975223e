"""Bindings that only the distribution has: one that is missing is told with its package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conversion.handle import open_appliance
from v2v import nbd_client
from v2v.errors import HostError
from v2v.inputs._libvirt import host as _libvirt_host
from v2v.job import ConversionOptions
from v2v.run import Run


def test_missing_libnbd_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nbd", None)  # as Python itself marks what cannot be imported
    with pytest.raises(HostError) as caught:
        nbd_client.describe(tmp_path / "socket")
    assert caught.value.id == "binding-missing"
    assert "python3-libnbd" in (caught.value.hint or "")


def test_missing_guestfs_names_its_package(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "guestfs", None)
    with pytest.raises(HostError) as caught, open_appliance([], ConversionOptions(), run):
        pass
    assert caught.value.id == "binding-missing"
    assert "python3-guestfs" in (caught.value.hint or "")


def test_missing_libvirt_names_its_package(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(HostError) as caught:
        _libvirt_host.read_vm(None, "web", None, run)
    assert caught.value.id == "binding-missing"
    assert "python3-libvirt" in (caught.value.hint or "")
