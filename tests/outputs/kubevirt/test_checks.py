"""-o kubevirt into a cluster: what is refused before anything is copied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.kubernetes import words
from tests.outputs.kubevirt.job import SIZES, refused, source
from v2v.errors import TargetError
from v2v.outputs._kubevirt import login, proxy
from v2v.types import GuestCaps, MiB, Nic, Source


def test_a_wrong_token_is_told(fake, output, run) -> None:
    fake.token = "another"
    error = refused(output, run)
    assert error.id == "target-login"
    assert "letmein" not in str(error)


def test_an_untrusted_api_is_told_and_gets_no_token(fake, staging, run) -> None:
    given = words(fake, staging)
    del given["-oo cafile"]
    error = refused(make("kubevirt", given), run)
    assert error.id == "target-untrusted" and "-oo cafile" in (error.hint or "")
    assert fake.requests == []


def test_an_untrusted_upload_proxy_is_told(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oo upload-cafile": str(fake.certificate.cafile)}
    error = refused(make("kubevirt", given), run)
    assert error.id == "target-untrusted" and "-oo upload-cafile" in (error.hint or "")


def test_any_certificate_is_trusted_when_asked(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oo verifypeer": "no"}
    del given["-oo cafile"], given["-oo upload-cafile"]
    make("kubevirt", given).check_source(source(), run)


@pytest.mark.parametrize("group", ["kubevirt.io", "cdi.kubevirt.io", "upload.cdi.kubevirt.io"])
def test_a_cluster_without_kubevirt_or_cdi(fake, output, run, group) -> None:
    fake.groups.remove(group)
    assert refused(output, run).id == "kubevirt-missing"


def test_an_unknown_namespace(fake, staging, run) -> None:
    made = make("kubevirt", words(fake, staging, namespace="nowhere"))
    assert refused(made, run).id == "kubevirt-namespace"


@pytest.mark.parametrize(
    "right", ["datavolumes", "virtualmachines", "uploadtokenrequests", "delete datavolumes"]
)
def test_missing_rights_are_found_early(fake, output, run, right) -> None:
    fake.denied.add(right)
    error = refused(output, run)
    assert error.id == "target-forbidden" and right in error.message
    assert fake.names("datavolumes") == []


def test_storage_classes(fake, staging, run) -> None:
    given = words(fake, staging)
    wrong = refused(make("kubevirt", given | {"-os": "slow"}), run)
    assert wrong.id == "target-storage" and "fast, standard" in (wrong.hint or "")
    vm = source()
    mapped = replace(vm, disks=(replace(vm.disks[0], target_storage="slow"),))
    assert refused(make("kubevirt", given), run, mapped).id == "target-storage"
    odd = replace(vm, disks=(replace(vm.disks[0], target_storage="../x"),))
    assert refused(make("kubevirt", given), run, odd).id == "target-storage"
    make("kubevirt", given | {"-os": "fast"}).check_source(vm, run)
    del fake.objects["storageclasses", "", "standard"]
    assert "no default" in refused(make("kubevirt", given), run).message


def test_a_class_that_cdi_knows_no_access_mode_of(fake, staging, run) -> None:
    """CDI would wait for one for ever, and tell it in an event alone."""
    made = make("kubevirt", words(fake, staging))
    for status in ({}, {"claimPropertySets": [{"volumeMode": "Block"}]}):
        fake.put("storageprofiles", "", "standard", status=status)
        error = refused(made, run)
        assert error.id == "target-storage" and "patch storageprofile standard" in (
            error.hint or ""
        )
    virt = {"annotations": {"storageclass.kubevirt.io/is-default-virt-class": "true"}}
    fake.put("storageclasses", "", "fast", metadata=virt)
    made.check_source(source(), run)
    del fake.objects["storageprofiles", "", "fast"]
    made.check_source(source(), run)


@pytest.mark.parametrize(
    ("plural", "name"),
    [("virtualmachines", "web"), ("datavolumes", "web-sda"), ("persistentvolumeclaims", "web-sda")],
)
def test_a_taken_name_is_refused(fake, output, run, plural, name) -> None:
    fake.put(plural, "default", name)
    error = refused(output, run, source("WEB"))
    assert error.id == "target-exists" and name in error.message


def test_networks_that_are_not_there(fake, output, run) -> None:
    def vm(network: str) -> Source:
        return replace(source(), nics=(Nic(network=network),))

    assert refused(output, run, vm("infra/lan")).id == "target-network"
    fake.put("network-attachment-definitions", "infra", "lan")
    fake.put("network-attachment-definitions", "default", "lan")
    for network in ("infra/lan", "lan", "pod", "VM Network"):
        output.check_source(vm(network), run)


def test_the_upload_proxy_is_needed_and_must_answer(fake, staging, run) -> None:
    fake.told_proxy = False
    assert refused(make("kubevirt", words(fake, staging)), run).id == "option-required"
    given = words(fake, staging, upload_proxy="https://127.0.0.1:1")
    assert refused(make("kubevirt", given), run).id == "target-unreachable"
    given["-oo upload-proxy"] = fake.proxy + "/elsewhere"
    assert refused(make("kubevirt", given), run).id == "target-unreachable"
    given["-oo upload-proxy"] = "https://[x"
    assert refused(make("kubevirt", given), run).id in ("uri-invalid", "option-value")


def test_an_upload_proxy_that_is_silent_is_not_waited_for_long(
    fake, output, run, monkeypatch
) -> None:
    monkeypatch.setattr(proxy, "LOOK_SECONDS", 0.1)
    fake.silence.clear()
    assert refused(output, run).id == "target-unreachable"
    fake.silence.set()


def test_an_api_that_is_not_there(fake, staging, run) -> None:
    made = make("kubevirt", words(fake, staging) | {"-oc": "https://127.0.0.1:1"})
    assert refused(made, run).id == "target-unreachable"


def test_a_server_that_is_no_kubernetes(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oc": fake.proxy}
    made = make("kubevirt", given | {"-oo cafile": given["-oo upload-cafile"]})
    assert refused(made, run).id in ("target-answer", "target-refused")


def test_an_answer_without_end_is_not_kept(fake, output, run, monkeypatch) -> None:
    monkeypatch.setattr(login, "MAX_ANSWER", 20_000)
    fake.groups |= {f"{number}.example.com" for number in range(1000)}
    assert refused(output, run).id == "target-answer"


def test_files_that_hold_no_certificates_or_token(fake, staging, tmp_path, run) -> None:
    given = words(fake, staging)
    empty = tmp_path / "empty"
    empty.write_text("")
    assert refused(make("kubevirt", given | {"-oo cafile": str(empty)}), run).id == "tls-files"
    missing = given | {"-oo upload-cafile": str(tmp_path / "missing")}
    assert refused(make("kubevirt", missing), run).id == "tls-files"
    assert refused(make("kubevirt", given | {"-op": str(empty)}), run).id == "option-required"
    empty.write_text("to\x01ken")
    assert refused(make("kubevirt", given | {"-op": str(empty)}), run).id == "password-file"


def test_sizes_that_do_not_fit(fake, output, run) -> None:
    fake.quota = {"requests.storage": "4Mi", "persistentvolumeclaims": "1"}
    output.check_sizes(SIZES, [0], run)
    with pytest.raises(TargetError, match=r"requests\.storage") as error:
        output.check_sizes([4 * MiB + 512], [0], run)
    assert error.value.id == "target-space"
    with pytest.raises(TargetError, match="persistentvolumeclaims"):
        output.check_sizes([MiB, MiB], [0, 0], run)
    with pytest.raises(TargetError) as error:
        output.check_sizes([MiB + 1], [0], run)
    assert error.value.id == "target-disk-size"
    with pytest.raises(TargetError) as error:
        output.check_sizes([MiB], [1 << 60], run)
    assert error.value.id == "staging-space"


def test_a_guest_of_another_architecture(output, run) -> None:
    caps = GuestCaps(GUEST.caps.block_bus, GUEST.caps.net_model, GUEST.caps.machine, arch="ppc64le")
    with pytest.raises(TargetError) as error:
        output.check_guest(replace(GUEST, caps=caps), run)
    assert error.value.id == "target-arch"


def test_a_vm_that_the_cluster_refuses_is_told_before_it_is_copied(fake, output, run) -> None:
    run.journal.put("source", source())
    output.check_guest(GUEST, run)
    assert fake.names("virtualmachines") == []
    fake.refusal = "VMPersistentState feature gate is not enabled"
    with pytest.raises(TargetError, match="feature gate") as error:
        output.check_guest(GUEST, run)
    assert error.value.id == "target-refused" and error.value.hint
    fake.refusal = "webhook does not support dry run"
    output.check_guest(GUEST, run)
    fake.put("virtualmachines", "default", "web", metadata={"labels": {"v2v-job": run.job_id}})
    output.check_guest(GUEST, run)
