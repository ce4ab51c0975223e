"""Uploads, as pve-http-server reads them: fields in one order, the file last, no chunks."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from http.client import HTTPMessage
from pathlib import Path
from typing import BinaryIO

from tests.fakes.proxmox.state import ApiError, State, Task

BLOCK = 256 * 1024
FIELD = re.compile(rb'Content-Disposition: form-data; name="([^"]*)"(?:; filename="([^"]+)")?\r\n')


class Cut(Exception):
    """The connection breaks here."""


def receive(
    state: State,
    log_in: Callable[[], str],
    node: str,
    name: str,
    headers: HTTPMessage,
    body: BinaryIO,
) -> str:
    """`log_in` looks who it is: the proxy first, and the daemon that gets what was received."""
    state.check(log_in(), f"/storage/{name}", "Datastore.AllocateTemplate")
    with state.upload():
        fields, temporary = _read(state, headers, body)
        state.clock += state.faults.upload_seconds
        state.faults.received.pass_by()
    try:
        return _take(state, log_in(), node, name, fields, temporary)
    except ApiError:
        temporary.unlink()
        raise


def _take(
    state: State, user: str, node: str, name: str, fields: dict[str, str], temporary: Path
) -> str:
    storage = state.storages.get(name)
    if storage is None or not storage.enabled:
        raise ApiError(500, f"storage '{name}' does not exist")
    if not re.fullmatch(r"[A-Za-z0-9.+=_-]+\.(ova|qcow2|raw|vmdk)", fields["filename"]):
        wrong = {"filename": "invalid filename or wrong extension"}
        raise ApiError(400, "Parameter verification failed.", wrong)
    if fields["content"] not in storage.content.split(","):
        raise ApiError(500, f"storage '{name}' does not support '{fields['content']}' content")
    final = storage.image(fields["filename"])

    def work(task: Task) -> None:
        task.log.append(f"starting file import from: {temporary}")
        try:
            _check(temporary, fields)
            task.log += [f"target node: {node}", f"target file: {final}"]
            state.faults.copy.pass_by(task.stop)
            task.checkpoint()
            final.parent.mkdir(parents=True, exist_ok=True)
            final.write_bytes(temporary.read_bytes())
        finally:
            temporary.unlink()
        task.log.append("finished file import successfully")

    upid = state.start("imgcopy", "", user, work)
    if state.faults.lost_answers > 0:
        state.faults.lost_answers -= 1
        raise Cut
    return upid


def _read(state: State, headers: HTTPMessage, body: BinaryIO) -> tuple[dict[str, str], Path]:
    if headers.get("Transfer-Encoding"):
        raise ApiError(501, "chunked transfer encoding not supported")
    boundary = re.fullmatch(r"multipart/form-data; boundary=(\S+)", headers["Content-Type"])
    assert boundary, headers["Content-Type"]
    start, end = f"--{boundary[1]}\r\n".encode(), f"\r\n--{boundary[1]}--\r\n".encode()
    left = int(headers["Content-Length"])
    fields: dict[str, str] = {}
    while True:
        line = body.readline()
        assert line == start, line
        header = body.readline()
        left -= len(line) + len(header)
        match = FIELD.fullmatch(header)
        assert match, header
        while (line := body.readline()) != b"\r\n":
            left -= len(line)
        left -= 2
        name = match[1].decode()
        if match[2]:
            assert name == "filename"
            break
        value = body.readline()
        left -= len(value)
        fields[name] = value.decode().strip()
    assert list(fields) == ["content", "checksum-algorithm", "checksum"]
    fields["filename"] = match[2].decode()
    return fields, _save(state, body, left - len(end), end)


def _save(state: State, body: BinaryIO, size: int, end: bytes) -> Path:
    path = state.folder / f"pveupload-{len(state.requests)}"
    cut = state.faults.cut_uploads.pop(0) if state.faults.cut_uploads else None
    done = 0
    try:
        with path.open("wb") as file:
            while done < size:
                block = body.read(min(BLOCK, size - done))
                if not block or (cut is not None and done >= cut):
                    raise Cut
                file.write(block)
                done += len(block)
                state.faults.upload.pass_by()
        assert body.read(len(end)) == end
    except BaseException:
        path.unlink()
        raise
    if state.faults.corrupt:
        with path.open("r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)[0]
            file.seek(size // 2)
            file.write(bytes([byte ^ 1]))
    return path


def _check(path: Path, fields: dict[str, str]) -> None:
    got = hashlib.new(fields["checksum-algorithm"], path.read_bytes()).hexdigest()
    if got != fields["checksum"]:
        raise RuntimeError(f"checksum mismatch: got '{got}' != expect '{fields['checksum']}'")
    format = Path(fields["filename"]).suffix[1:]
    subprocess.run(["qemu-img", "info", "-f", format, path], check=True, capture_output=True)
