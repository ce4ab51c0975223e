"""Boot a throw-away copy of a finished guest, and say with evidence whether it works.

The result itself is never written: every disk gets a temporary qcow2 over it. The verdict comes
from the serial console and the guest agent; a screenshot and the console's log are kept in the
job's folder. docs/boot-check.md tells users what is looked for.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2v import accel, events, overlay, qemu
from v2v.boot_check import machine
from v2v.boot_check.agent import Agent
from v2v.boot_check.console import Console
from v2v.boot_check.machine import VirtualMachine
from v2v.endpoint import Endpoint
from v2v.hardware import Hardware
from v2v.process import ToolError
from v2v.run import Run
from v2v.types import BootEvidence, ConvertedGuest, NetModel, TargetDisk

SCREENSHOT = "boot-check.png"
CONSOLE_LOG = "boot-check.log"

AFTER_TROUBLE = 3.0  # seconds in which a line may come that says more about it
AFTER_LOGIN = {"kvm": 2.0, "tcg": 6.0}  # seconds in which the agent may appear
AFTER_AGENT = {"kvm": 10.0, "tcg": 60.0}  # seconds in which the login prompt may follow the agent
AGENT_SECONDS = 30.0  # an agent that appeared gets so long to answer
MONITOR_SECONDS = 30.0  # QEMU's own answers
MAX_RESETS = 5  # a relabelling guest resets itself once; one that never stops is broken

# The only Linux driver that binds to each of our NICs, for names that the agent reports.
NIC_DRIVERS = {
    NetModel.VIRTIO: "virtio_net",
    NetModel.E1000E: "e1000e",
    NetModel.E1000: "e1000",
    NetModel.RTL8139: "8139cp",
}


def boot_check(
    hardware: Hardware,
    guest: ConvertedGuest,
    disks: Sequence[TargetDisk],
    *,
    seconds: float,
    instrument: Callable[[Sequence[Endpoint]], None],
    run: Run,
) -> BootEvidence:
    """Boot throw-away copies of `disks` for at most `seconds`; the evidence has the verdict.

    `instrument` makes writable copies log their boot to the serial console; it is called when the
    guest does not do so by itself. Raises V2VError when this host cannot do the check.
    """
    accelerator = accel.accelerator(qemu.emulator(hardware.arch), run.cancel)
    with ExitStack() as stack:
        copies = [
            stack.enter_context(overlay.throw_away(Path(disk.location), disk.format, index, run))[0]
            for index, disk in enumerate(disks)
        ]
        if not guest.serial_console:
            _instrument(copies, instrument, run)
        watch = Watch(seconds, accelerator, run)
        try:
            vm = stack.enter_context(machine.start(hardware, copies, accelerator, run))
            watch.follow(vm)
            screenshot = take_screenshot(vm, run)
        finally:
            (run.folder / CONSOLE_LOG).write_text(watch.console.log, encoding="utf-8")
    return watch.evidence(hardware, screenshot, instrumented=not guest.serial_console)


def _instrument(
    copies: Sequence[Path], instrument: Callable[[Sequence[Endpoint]], None], run: Run
) -> None:
    with ExitStack() as servers:
        instrument(
            [
                servers.enter_context(overlay.serve_overlay(copy, index, run))
                for index, copy in enumerate(copies)
            ]
        )


def take_screenshot(vm: VirtualMachine, run: Run) -> str | None:
    """What the screen shows, as a PNG (QEMU 7.1 and later); its name in the job's folder."""
    picture = run.folder / SCREENSHOT
    picture.unlink(missing_ok=True)
    arguments: dict[str, object] = {"filename": str(picture), "format": "png"}
    try:
        # A guest that resets itself without end may keep QEMU from ever drawing the picture.
        vm.monitor.ask("stop", seconds=MONITOR_SECONDS)
        vm.monitor.ask("screendump", arguments, seconds=MONITOR_SECONDS)
    except ToolError as exc:
        run.cancel.check()
        run.warn(f"no screenshot of the boot check: {exc.message}", id="no-screenshot")
        return None
    return SCREENSHOT


@dataclass
class Watch:
    """Follows one boot until its verdict is known."""

    seconds: float
    accelerator: str
    run: Run
    console: Console = field(default_factory=Console)
    reached_at: float = 0.0  # seconds after the start
    login_at: float | None = None
    answered_at: float | None = None  # when the agent had said all
    fatal_at: float | None = None
    resets: int = 0
    trouble: str | None = None  # what the machine itself told
    began: float = field(default_factory=time.monotonic)
    agent: Agent | None = None

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    @property
    def passed(self) -> bool:
        answered = self.agent is not None and self.agent.version is not None
        return (self.console.seen.reached == "login" or answered) and self.fatal_at is None

    def follow(self, vm: VirtualMachine) -> None:
        """Read what the guest says until there is nothing left to wait for."""
        self.began = time.monotonic()
        agent = self.agent = Agent(vm.agent)
        vm.monitor.send("qmp_capabilities")
        with selectors.DefaultSelector() as selector:
            selector.register(vm.console, selectors.EVENT_READ, lambda: self._read_console(vm))
            selector.register(vm.monitor, selectors.EVENT_READ, lambda: self._read_monitor(vm))
            selector.register(vm.agent, selectors.EVENT_READ, agent.receive)
            while (left := self._ends_at() - self.now) > 0:
                for key, _ in selector.select(left):
                    key.data()
                if agent.done and agent.version is not None and self.answered_at is None:
                    self.answered_at = self.now
                if vm.agent.closed and vm.agent.fileno() in selector.get_map():
                    selector.unregister(vm.agent)
        self.run.cancel.check()

    def _ends_at(self) -> float:
        """When to stop, in seconds after the start, by what is known now."""
        agent = self.agent
        if self.answered_at is not None and self.login_at is not None:
            return 0.0
        ends = [self.seconds]
        if self.answered_at is not None:
            ends.append(self.answered_at + AFTER_AGENT[self.accelerator])
        if self.login_at is not None:
            wait = AGENT_SECONDS if agent and agent.connected else AFTER_LOGIN[self.accelerator]
            ends.append(self.login_at + wait)
        if self.fatal_at is not None:
            ends.append(self.fatal_at + AFTER_TROUBLE)
        return min(ends)

    def _read_console(self, vm: VirtualMachine) -> None:
        data = vm.console.recv(65536)
        if not data:
            self.run.cancel.check()
            raise vm.failure()
        before = self.console.seen
        self.console.feed(data)
        seen = self.console.seen
        if seen.reached != before.reached:
            self.reached_at = self.now
            text = f"boot check: {seen.reached} after {self.reached_at:.1f} s"
            self.run.emit(events.Message, text=text)
        if seen.reached == "login" and self.login_at is None:
            self.login_at = self.now
        if seen.fatal and self.fatal_at is None:
            self.fatal_at = self.now

    def _read_monitor(self, vm: VirtualMachine) -> None:
        for message in vm.monitor.receive():
            self._take_event(str(message.get("event")), message.get("data") or {})
        if vm.monitor.closed:
            self.run.cancel.check()
            raise vm.failure()

    def _take_event(self, event: str, data: dict[str, Any]) -> None:
        if event == "VSERPORT_CHANGE" and data.get("open") and self.agent:
            self.agent.connect()
        elif event == "SHUTDOWN":
            self._fail("the guest switched itself off")
        elif event == "GUEST_PANICKED":
            self._fail("the guest reported a panic")
        elif event == "RESET" and data.get("guest"):
            self.resets += 1
            if self.resets >= MAX_RESETS:
                self._fail("the guest resets itself again and again")

    def _fail(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble
        if self.fatal_at is None:
            self.fatal_at = self.now

    def evidence(
        self, hardware: Hardware, screenshot: str | None, *, instrumented: bool
    ) -> BootEvidence:
        seen = self.console.seen
        return BootEvidence(
            passed=self.passed,
            reached=seen.reached,
            seconds=self.reached_at,
            accelerator=self.accelerator,
            root_device=seen.root_device,
            block_driver=seen.block_driver,
            nic_drivers={**self._agent_nics(hardware), **seen.nic_drivers},
            agent=self.agent.version if self.agent else None,
            instrumented=instrumented,
            screenshot=screenshot,
            console_log=CONSOLE_LOG,
            trouble=None if self.passed else self._why(),
        )

    def _agent_nics(self, hardware: Hardware) -> dict[str, str]:
        """Names the agent gave to our NICs; a NIC that is there has its driver bound."""
        ours = {nic.mac for nic in hardware.nics}
        named = self.agent.interfaces if self.agent else {}
        return {name: NIC_DRIVERS[hardware.net_model] for mac, name in named.items() if mac in ours}

    def _why(self) -> str:
        if told := self.console.seen.trouble or self.trouble:
            return told
        last = self.console.last_line
        end = f"the last line was: {last[:300]}" if last else "the serial console stayed silent"
        return f"no login prompt within {self.seconds:.0f} s; {end}"
