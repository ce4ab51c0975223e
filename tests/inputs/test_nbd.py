"""-i nbd: which guests it takes."""

from __future__ import annotations

import pytest

from v2v import registry
from v2v.errors import UsageError, V2VError
from v2v.inputs._plain import ImageOptions
from v2v.inputs.nbd import NbdInput
from v2v.job import ModuleChoice
from v2v.run import Run


@pytest.mark.parametrize(
    "word",
    ["/srv/disk.img", "disk.img", "localhost:10809", "nbd://", "nbd:/s", "http://host/x", "?"],
)
def test_what_is_no_nbd_address(run: Run, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        NbdInput(ImageOptions(), ["nbd://localhost/", word]).read_source(run)
    assert caught.value.id == "uri-scheme"
    assert word in str(caught.value)
    assert "-i disk" in (caught.value.hint or "")


@pytest.mark.parametrize("scheme", ["nbd+unix", "NBD+unix", "nbds+unix"])
def test_addresses_are_tried(run: Run, scheme: str) -> None:
    with pytest.raises(V2VError) as caught:
        NbdInput(ImageOptions(), [f"{scheme}:///?socket=/nowhere/s"]).read_source(run)
    assert caught.value.id == "nbd-unreachable"


def test_it_has_the_options_of_disk() -> None:
    made = registry.make_input(ModuleChoice("nbd", {"-if": "qcow2"}), ("nbd://host/",))
    assert made.options == ImageOptions(format=made.options.format)
    assert made.options.format == "qcow2"
