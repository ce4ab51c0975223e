"""-o rhv-upload: arithmetic, and what errors of oVirt's client become."""

from __future__ import annotations

import pytest

from v2v.outputs._ovirt.domains import Domain, initial_size
from v2v.outputs._ovirt.engine import failure
from v2v.outputs._ovirt.options import Login, UploadFormat, UploadOptions
from v2v.types import GiB, MiB

WHERE = Login("https://engine/ovirt-engine/api", "engine", "admin@internal")


@pytest.mark.parametrize(
    ("size", "data", "least", "most"),
    [
        (100 * GiB, 10 * GiB, 11 * GiB, 11 * GiB + 64 * MiB),
        (100 * GiB, 100 * GiB, 100 * GiB, 101 * GiB),
        (GiB, 0, GiB, GiB + 2 * MiB),
        (10 * GiB, 0, GiB, GiB + 8 * MiB),
    ],
)
def test_a_volume_holds_the_data_and_what_a_conversion_adds(
    size: int, data: int, least: int, most: int
) -> None:
    options = UploadOptions(engine="", storage="", format=UploadFormat.QCOW2)
    found = initial_size(options, Domain("d", "blocks", True, 0), size, data)
    assert found is not None
    assert least < found <= most


def test_what_the_client_raises() -> None:
    import ovirtsdk4 as sdk
    from ovirtsdk4 import types

    fault = types.Fault(reason="Operation Failed", detail="[Low \x1b disk space]")
    refused = sdk.Error("x HTTP response code is 409.")
    refused.code, refused.fault = 409, fault
    forbidden = sdk.AuthError("HTTP response code is 403.")
    cases = [
        (sdk.Error("Error while sending HTTP request: (60, 'SSL problem')"), "target-untrusted"),
        (sdk.Error("Error while sending HTTP request: (77, 'no file')"), "target-untrusted"),
        (
            sdk.Error("Failed to read response: [(<o at 0x1>, 7, 'no')]"),
            "target-unreachable",
        ),
        (sdk.Error("Failed to read response: [(<o at 0x1>, 60, 'x')]"), "target-untrusted"),
        (sdk.ConnectionError("x"), "target-unreachable"),
        (sdk.TimeoutError("x"), "target-unreachable"),
        (TimeoutError(), "target-unreachable"),
        (refused, "target-refused"),
        (forbidden, "target-login"),
        (sdk.Error("The response content type 'text/html' isn't"), "target-answer"),
        (ValueError("no JSON"), "target-answer"),
        (TypeError("expected string"), "target-answer"),
    ]
    found = [failure(error, "do it", WHERE, sdk) for error, _ in cases]
    assert [error.id for error in found] == [id for _, id in cases]
    assert not [error for error in found if "\x1b" in str(error)]
    assert not [error for error in found if not error.hint]
    assert not [error for error in found if "(" in str(error)]  # only curl's words
    assert "[Low" in str(found[7])
