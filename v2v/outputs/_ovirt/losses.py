"""What oVirt cannot do for a guest as the source did."""

from __future__ import annotations

from v2v.hardware import Hardware
from v2v.outputs._ovirt.os_ids import os_id
from v2v.outputs._ovirt.ovf_devices import takes_tpm
from v2v.run import Run


def tell_losses(hardware: Hardware, run: Run) -> None:
    os = os_id(hardware)
    if hardware.tpm and not takes_tpm(hardware, os):
        run.warn(
            f"the guest loses its TPM: oVirt has none for {os.name}, or with such firmware",
            id="ovirt-no-tpm",
            hint="choose another operating system in the VM's settings, and add the TPM there",
        )
    if not os.exact:
        run.warn(
            "oVirt does not know the guest's operating system, or not on such a machine: it is "
            f"told {os.name}",
            id="ovirt-os",
            hint="where a newer oVirt knows it, choose it in the VM's settings",
        )
