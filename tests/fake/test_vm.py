"""A machine's life and its ends, with a scripted QEMU in place of the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakeqemu
import pytest

from rig.clock import Deadline, Stopwatch
from rig.errors import ConfigError, HostError
from rig.guests.image import overlay
from rig.guests.keys import RunKeys, make_keys
from rig.machines import accel, guest
from rig.machines.ends import BootKind, EndKind
from rig.machines.qemu import VmSpec
from rig.machines.vm import Vm

LONG = 60.0  # a deadline that only a broken rig reaches

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fake_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fakeqemu.install(tmp_path / "bin").parent
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def run_keys(tmp_path: Path) -> RunKeys:
    return make_keys(tmp_path / "keys")


def spec_of(tmp_path: Path, script: dict[str, Any], run_keys: RunKeys | None = None) -> VmSpec:
    kernel, initrd = tmp_path / "bzImage", tmp_path / "initrd"
    kernel.write_text(json.dumps(script))
    initrd.write_bytes(overlay(run_keys) if run_keys else b"")
    return VmSpec(kernel=kernel, initrd=initrd, machine=accel.ProbeMachine(), accelerator="tcg")


def start(tmp_path: Path, *acts: Sequence[Any], run_keys: RunKeys | None = None, **more: Any) -> Vm:
    return Vm.start(spec_of(tmp_path, {"acts": [*acts, ["hang"]], **more}, run_keys), tmp_path / "vm")


def test_boots_and_is_logged_in_to(tmp_path: Path, run_keys: RunKeys) -> None:
    with start(tmp_path, ["console", fakeqemu.BOOT], ["ready"], ["ssh"], run_keys=run_keys) as vm:
        outcome, connection = guest.reach(vm, run_keys, Deadline(LONG))
        assert outcome.kind is BootKind.READY
        assert connection is not None
        with connection:
            assert connection.run("echo hello", LONG).stdout == "hello\n"
        assert vm.alive
    assert vm.end is not None
    assert vm.end.kind is EndKind.KILLED
    assert "Run /init" in vm.console_path.read_text()
    assert "rig: ready" in (tmp_path / "vm" / "channel.log").read_text()


def test_the_reproducer_is_there_before_qemu(tmp_path: Path) -> None:
    with start(tmp_path, ["hang"]):
        command = (tmp_path / "vm" / "qemu.cmd").read_text()
    assert "-kernel" in command
    assert "fd=" not in command  # nothing that only the rig could connect


def test_a_panic_in_the_middle_of_a_command(tmp_path: Path, run_keys: RunKeys) -> None:
    replies = [{"pattern": "workload", "stdout": "ok 1\n", "then": "panic"}]
    with start(tmp_path, ["ready"], ["ssh"], run_keys=run_keys, replies=replies) as vm:
        _, connection = guest.reach(vm, run_keys, Deadline(LONG))
        assert connection is not None
        done = connection.run("workload", LONG)
        assert done.lost
        assert done.status is None
        end = vm.wait_end(LONG)
    assert end is not None
    assert end.kind is EndKind.RESET
    assert not end.host_fault
    assert "Kernel panic - not syncing" in vm.console_path.read_text()
    assert end.last_line.endswith("Kernel Offset: disabled")


def test_hangs_in_boot(tmp_path: Path) -> None:
    with start(tmp_path, ["console", "stuck here\n"], ["channel", "rig: stage mount\n"]) as vm:
        while vm.console.last_line != "stuck here":
            time.sleep(0.01)
        outcome = vm.wait_ready(Deadline(1.0))
        assert outcome.kind is BootKind.HUNG
        assert outcome.stage in ("qemu", "mount")
        assert outcome.last_line == "stuck here"


@pytest.mark.parametrize(
    ("act", "kind"), [(["panic"], EndKind.RESET), (["poweroff"], EndKind.POWEROFF), (["exit", 1], EndKind.QEMU_DIED)]
)
def test_dies_in_boot(tmp_path: Path, act: list[Any], kind: EndKind) -> None:
    with start(tmp_path, ["console", fakeqemu.BOOT], act) as vm:
        outcome = vm.wait_ready(Deadline(LONG))
    assert outcome.kind is BootKind.DIED
    assert outcome.end is not None
    assert outcome.end.kind is kind
    assert outcome.end.host_fault == (kind is EndKind.QEMU_DIED)


def test_a_boot_that_is_not_wanted_any_more_is_given_up(tmp_path: Path, run_keys: RunKeys) -> None:
    wanted = threading.Event()
    wanted.set()
    with start(tmp_path) as vm:
        threading.Timer(0.3, wanted.clear).start()
        watch = Stopwatch()
        outcome, connection = guest.reach(vm, run_keys, Deadline(LONG), wanted.is_set)
        assert watch.elapsed < LONG / 2
    assert connection is None
    assert outcome.kind is BootKind.HUNG


def test_set_up_fails(tmp_path: Path) -> None:
    with start(tmp_path, ["channel", "rig: stage machine\nrig: broken /dev/vda does not mount as xfs\n"]) as vm:
        outcome = vm.wait_ready(Deadline(LONG))
    assert outcome.kind is BootKind.BROKEN
    assert "/dev/vda does not mount as xfs" in outcome.detail


def test_never_answers_ssh(tmp_path: Path, run_keys: RunKeys) -> None:
    with start(tmp_path, ["ready"], ["deaf"], run_keys=run_keys) as vm:
        outcome, connection = guest.reach(vm, run_keys, Deadline(2.0))
    assert connection is None
    assert outcome.kind is BootKind.NO_SSH


def test_dies_while_it_is_being_logged_in_to(tmp_path: Path, run_keys: RunKeys) -> None:
    with start(tmp_path, ["ready"], ["deaf"], ["sleep", 1.0], ["panic"], run_keys=run_keys) as vm:
        outcome, connection = guest.reach(vm, run_keys, Deadline(LONG))
    assert connection is None
    assert outcome.kind is BootKind.DIED
    assert outcome.end is not None
    assert outcome.end.kind is EndKind.RESET


def test_killed_from_outside(tmp_path: Path) -> None:
    with start(tmp_path, ["signal", signal.SIGKILL]) as vm:
        end = vm.wait_end(LONG)
    assert end is not None
    assert end.kind is EndKind.QEMU_DIED
    assert end.status == -signal.SIGKILL
    assert end.host_fault


def test_a_full_host_disk_is_the_hosts_fault(tmp_path: Path) -> None:
    with start(tmp_path, ["ready"], ["freeze"]) as vm:
        end = vm.wait_end(LONG)
    assert end is not None
    assert end.kind is EndKind.STOPPED
    assert "No space left on device" in end.detail
    assert end.host_fault


def test_qemu_that_cannot_start_is_a_host_error(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {"stderr": "qemu: could not open disk image\n", "status": 1})
    with pytest.raises(HostError, match="could not open disk image") as caught:
        Vm.start(spec, tmp_path / "vm")
    assert caught.value.evidence is not None
    assert caught.value.evidence.exists()


def test_an_unreadable_kernel_is_a_host_error(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {})
    spec.kernel.unlink()
    with pytest.raises(HostError, match="kernel cannot be read"):
        Vm.start(spec, tmp_path / "vm")


def test_no_qemu_at_all_is_a_host_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="program not found"):
        start(tmp_path)


def test_any_bytes_reach_the_log_and_the_callback(tmp_path: Path) -> None:
    seen = bytearray()
    spec = spec_of(tmp_path, {"acts": [["garbage", 300_000], ["poweroff"]]})
    with Vm.start(spec, tmp_path / "vm", seen.extend) as vm:
        assert vm.wait_end(LONG) is not None
    assert len(seen) == 300_000
    assert vm.console_path.read_bytes() == bytes(seen)


def test_a_failing_callback_does_not_hurt_the_log_and_is_not_lost(tmp_path: Path) -> None:
    def fail(chunk: bytes) -> None:
        raise LookupError("scanner")

    spec = spec_of(tmp_path, {"acts": [["console", "a\n"], ["sleep", 0.1], ["console", "b\n"], ["poweroff"]]})
    vm = Vm.start(spec, tmp_path / "vm", fail)
    assert vm.wait_end(LONG) is not None
    with pytest.raises(LookupError, match="scanner"):
        vm.stop()
    assert vm.console_path.read_text() == "a\nb\n"


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    vm = start(tmp_path)
    assert vm.stop() == vm.stop()
    assert vm.stop().kind is EndKind.KILLED
    vm.sysrq("w")  # and so is asking a machine that ended


FLOOD = """
import re, sys
from pathlib import Path
from rig.machines.accel import ProbeMachine
from rig.machines.qemu import VmSpec
from rig.machines.vm import Vm
folder, size = Path(sys.argv[1]), 0
def count(chunk):
    global size
    size += len(chunk)
spec = VmSpec(kernel=folder / "bzImage", initrd=folder / "initrd", machine=ProbeMachine(), accelerator="tcg")
with Vm.start(spec, folder / "vm", count) as vm:
    vm.wait_end(300)
peak = re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]  # ru_maxrss has the parent's in it
print(vm.console.total, size, vm.console.dropped, peak)
"""


def test_a_flood_is_kept_at_both_ends_in_bounded_memory(tmp_path: Path) -> None:
    size = 256 << 20
    spec_of(tmp_path, {"acts": [["console", "first\n"], ["flood", size], ["console", "last\n"], ["poweroff"]]})
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=280
    )
    total, handed, dropped, peak_kib = map(int, done.stdout.split())
    assert total == handed
    assert total > size * 0.99
    log = tmp_path / "vm" / "console.log"
    assert (32 + 16) << 20 <= log.stat().st_size <= (64 << 20) + 100
    with log.open("rb") as file:
        assert file.readline() == b"first\n"
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"last\n"
        file.seek((32 << 20) - 100)
        assert b"bytes of console output dropped here" in file.read(400)
    kept = log.stat().st_size - len(f"\n[rig: {dropped} bytes of console output dropped here]\n")
    assert kept + dropped == total
    assert peak_kib < 200 << 10
    assert [path.name for path in log.parent.glob("console.log.*")] == []


KILLED = """
import sys, time
from pathlib import Path
from rig.machines.accel import ProbeMachine
from rig.machines.qemu import VmSpec
from rig.machines.vm import Vm
folder = Path(sys.argv[1])
spec = VmSpec(kernel=folder / "bzImage", initrd=folder / "initrd", machine=ProbeMachine(), accelerator="tcg")
vm = Vm.start(spec, folder / "vm")
print(vm.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_rig_leaves_no_qemu(tmp_path: Path) -> None:
    spec_of(tmp_path, {"acts": [["ready"], ["hang"]]})
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as rig:
        assert rig.stdout is not None
        pid = int(rig.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        rig.kill()
    gone = Deadline(LONG)
    while Path(f"/proc/{pid}/exe").exists() and _state(pid) != "Z":
        assert not gone.expired, "the fake QEMU outlived its rig"
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "Z"


def test_an_end_is_known_to_all_who_wait(tmp_path: Path) -> None:
    with start(tmp_path, ["sleep", 0.3], ["poweroff"]) as vm:
        ends: list[Any] = []
        waiting = [threading.Thread(target=lambda: ends.append(vm.wait_end(LONG))) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
    assert [end.kind for end in ends] == [EndKind.POWEROFF] * 3


# -- the accelerator --------------------------------------------------------------------------------------------------

WORKS: dict[str, Any] = {"acts": []}
ABORTS = {"stderr": "error: failed to set MSR 0xe1 to 0x0\nqemu: Assertion failed.\n", "status": -6}
SPINS = {"spin": True}


@pytest.fixture
def kvm_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "KVM_DEVICE", device)
    monkeypatch.setattr(accel, "KVM_SECONDS", 2.0)
    return device


def choose(tmp_path: Path, wanted: str, **scripts: dict[str, Any]) -> accel.Accelerator:
    spec = spec_of(tmp_path, scripts)
    return accel.choose(wanted, spec.kernel, spec.initrd, tmp_path / "cache")


@pytest.mark.usefixtures("kvm_device")
class TestAccelerator:
    def test_kvm_that_boots_is_believed(self, tmp_path: Path) -> None:
        chosen = choose(tmp_path, "auto", kvm=WORKS, tcg=WORKS)
        assert chosen.name == "kvm"
        assert "switched off" in chosen.reason

    def test_kvm_that_aborts_is_not(self, tmp_path: Path) -> None:
        chosen = choose(tmp_path, "auto", kvm=ABORTS, tcg=WORKS)
        assert chosen.name == "tcg"
        assert "signal 6" in chosen.reason
        assert "Assertion failed" in chosen.reason

    def test_kvm_that_spins_is_not(self, tmp_path: Path) -> None:
        chosen = choose(tmp_path, "auto", kvm=SPINS, tcg=WORKS)
        assert chosen.name == "tcg"
        assert "did not boot within 2 s" in chosen.reason

    def test_the_answer_is_kept(self, tmp_path: Path) -> None:
        choose(tmp_path, "auto", kvm=ABORTS, tcg=WORKS)
        again = choose(tmp_path, "auto", kvm=WORKS, tcg=WORKS)
        assert again.name == "tcg"
        assert "earlier in this boot" in again.reason

    def test_insisting_asks_again_after_a_no(self, tmp_path: Path) -> None:
        choose(tmp_path, "auto", kvm=ABORTS, tcg=WORKS)
        assert choose(tmp_path, "kvm", kvm=WORKS, tcg=WORKS).name == "kvm"

    def test_insisting_on_what_fails_is_a_host_error(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match="does not work here: QEMU ended with signal 6") as caught:
            choose(tmp_path, "kvm", kvm=ABORTS, tcg=WORKS)
        assert caught.value.hint is not None

    def test_a_kernel_that_boots_nowhere_says_nothing_about_kvm(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accel, "TCG_SECONDS", 2.0)
        chosen = choose(tmp_path, "auto", kvm=SPINS, tcg=SPINS)
        assert chosen.name == "tcg"
        assert "neither" in chosen.reason
        assert choose(tmp_path, "auto", kvm=WORKS, tcg=WORKS).name == "kvm"

    def test_a_damaged_cache_is_probed_anew(self, tmp_path: Path) -> None:
        choose(tmp_path, "auto", kvm=ABORTS, tcg=WORKS)
        for file in (tmp_path / "cache").iterdir():
            file.write_text('{"wrong": 1}')
        assert choose(tmp_path, "auto", kvm=WORKS, tcg=WORKS).name == "kvm"

    def test_no_device_needs_no_boot(self, tmp_path: Path, kvm_device: Path) -> None:
        kvm_device.unlink()
        assert "has no" in choose(tmp_path, "auto", kvm=WORKS, tcg=SPINS).reason

    def test_tcg_is_taken_at_its_word(self, tmp_path: Path) -> None:
        assert choose(tmp_path, "tcg", kvm=SPINS, tcg=SPINS).name == "tcg"

    def test_an_unknown_accelerator_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="expected auto, kvm or tcg"):
            choose(tmp_path, "hvf", kvm=WORKS, tcg=WORKS)
