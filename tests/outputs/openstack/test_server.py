"""-o openstack: the server that v2v runs in."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.http_server import serve_folder
from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import refused
from tests.outputs.openstack.volumes import SOURCE, make, make_of
from v2v.run import Run


def metadata_words(cloud: Cloud, address: str) -> dict[str, str]:
    words = {**cloud.attaching, "-oo metadata-service": address}
    del words["-oo server-id"]
    return words


def test_the_metadata_service_tells_which_server(cloud: Cloud, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "web/openstack/latest/meta_data.json"
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"uuid": "{cloud.server}", "name": "converter"}}')
    with serve_folder(tmp_path / "web") as address:
        make_of(metadata_words(cloud, address)).check_source(SOURCE, run)
        for text in ("[]", "no json", '{"uuid": "../x"}'):
            file.write_text(text)
            refused(
                "metadata-service",
                make_of(metadata_words(cloud, address)).check_source,
                SOURCE,
                run,
            )
        file.unlink()
        refused(
            "metadata-service", make_of(metadata_words(cloud, address)).check_source, SOURCE, run
        )


def test_a_host_that_is_no_server_of_openstack_is_asked_nothing(
    cloud: Cloud, run: Run, tmp_path: Path, monkeypatch
) -> None:
    product = tmp_path / "product_name"
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    monkeypatch.setattr("v2v.outputs._openstack.server.PRODUCT", product)
    words = metadata_words(cloud, "")
    del words["-oo metadata-service"]
    refused("server-unknown", make_of(words).check_source, SOURCE, run)


def test_the_id_of_another_server_is_refused(
    cloud: Cloud, run: Run, tmp_path: Path, monkeypatch
) -> None:
    """A volume would be attached to it, and not show up here."""
    product, machine = tmp_path / "product_name", tmp_path / "product_uuid"
    product.write_text("OpenStack Nova\n")
    monkeypatch.setattr("v2v.outputs._openstack.server.PRODUCT", product)
    monkeypatch.setattr("v2v.outputs._openstack.server.MACHINE", machine)
    make(cloud).check_source(SOURCE, run)  # nobody can tell
    other = cloud.state.add_server()
    machine.write_text(f"{other}\n")
    assert other in refused("server-unknown", make(cloud).check_source, SOURCE, run).message
    machine.write_text(f"{cloud.server.upper()}\n")
    make(cloud).check_source(SOURCE, run)
