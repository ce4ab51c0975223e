"""nbdkit's Python plugin as virt-v2v's uploads have it: each request that nbdkit gets is one PUT.

nbdkit python put_plugin.py url=https://127.0.0.1:54322/images/TICKET cafile=ca.pem size=N
"""

import errno
import http.client
import json
import queue
import ssl
import urllib.parse

import nbdkit  # type: ignore[import-not-found]

API_VERSION = 2
CONNECTIONS = 4
given: dict[str, str] = {}
pool: "queue.Queue[http.client.HTTPSConnection]" = queue.Queue()


def config(key, value):
    given[key] = value


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def get_ready():
    url = urllib.parse.urlparse(given["url"])
    given["path"] = url.path
    context = ssl.create_default_context(cafile=given["cafile"])
    for _ in range(CONNECTIONS):
        pool.put(http.client.HTTPSConnection(url.netloc, context=context))


def open(readonly):
    return 1


def get_size(h):
    return int(given["size"])


def can_write(h):
    return True


def can_zero(h):
    return True


def can_flush(h):
    return True


def can_multi_conn(h):
    return True


def pread(h, buf, offset, flags):
    nbdkit.set_error(errno.EOPNOTSUPP)
    raise OSError("an upload is only written to")  # nbdkit wants a reader of every plugin


def request(method, path, body, headers):
    connection = pool.get()
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method}: HTTP {answer.status}")
    finally:
        pool.put(connection)


def pwrite(h, buf, offset, flags):
    where = f"bytes {offset}-{offset + len(buf) - 1}/*"
    headers = {"Content-Type": "application/octet-stream", "Content-Range": where}
    request("PUT", given["path"] + "?flush=n", buf, headers)


def patch(**what):
    body = json.dumps(what)
    request("PATCH", given["path"], body, {"Content-Type": "application/json"})


def zero(h, count, offset, flags):
    patch(op="zero", offset=offset, size=count, flush=False)


def flush(h, flags):
    patch(op="flush")
