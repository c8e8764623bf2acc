"""A real kernel under real QEMU: that the machine is what was asked for, and that each of its ends is seen.

The kernel is RIG_TEST_KERNEL (a bzImage), or the base kernel that the other boot tests build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from rig.clock import Deadline
from rig.errors import HostError
from rig.guests import disks, image, keys
from rig.machines import accel
from rig.machines.ends import BootKind, EndKind
from rig.machines.guest import Guest, reach
from rig.machines.qemu import MachineShape, VmSpec
from rig.machines.vm import Vm

pytestmark = pytest.mark.boot

BOOT = 300.0  # seconds; a deadline that only a broken machine reaches
LONG = 120.0


# What the probe boots, with transparent huge pages on request.
Shape = partial(accel.ProbeMachine, name="test", thp="madvise")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every machine of these tests needs."""

    folder: Path
    kernel: Path
    initrd: Path
    keys: keys.RunKeys
    accelerator: str

    def spec(self, machine: MachineShape, fs: str = "tmpfs") -> VmSpec:
        disk = None
        if fs != "tmpfs":
            disk = self.folder / fs
            if not disk.exists():
                disks.make_disk(disk, fs, 320)
        return VmSpec(
            kernel=self.kernel,
            initrd=self.initrd,
            machine=machine,
            accelerator=self.accelerator,
            filesystem=fs,
            disk=disk,
        )

    @contextmanager
    def machine(self, folder: Path, machine: MachineShape, fs: str = "tmpfs") -> Iterator[tuple[Vm, Guest]]:
        with ExitStack() as stack:
            vm = stack.enter_context(Vm.start(self.spec(machine, fs), folder / "vm"))
            outcome, guest = reach(vm, self.keys, Deadline(BOOT))
            assert guest is not None, outcome
            stack.enter_context(guest)
            yield vm, guest


@pytest.fixture(scope="module")
def kernel(request: pytest.FixtureRequest) -> Path:
    if named := os.environ.get("RIG_TEST_KERNEL"):
        return Path(named)
    return Path(request.getfixturevalue("built_kernel").bzimage)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, kernel: Path) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    run_keys = keys.make_keys(folder / "keys")
    base = image.base_image(folder / "base.cpio", binaries={}, extra=["mke2fs"])
    initrd = image.run_image(folder / "run.cpio", base, run_keys)
    chosen = accel.choose("auto", kernel, initrd, folder / "cache")
    print(chosen.reason)
    return Bench(folder=folder, kernel=kernel, initrd=initrd, keys=run_keys, accelerator=chosen.name)


@pytest.fixture(scope="module")
def numa(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vm, Guest]]:
    shape = Shape(
        cpus=4, sockets=2, nodes=2, memory_mib=768, hugepages=16, thp="always", shmem_thp="advise", cmdline=("rig.x=1",)
    )
    with bench.machine(tmp_path_factory.mktemp("numa"), shape, "ext4") as made:
        yield made


def test_the_guest_is_the_machine_that_was_asked_for(numa: tuple[Vm, Guest]) -> None:
    vm, guest = numa
    state = guest.read_state()
    assert (state.cpus, state.nodes, state.hugepages, state.hugepage_kib) == (4, 2, 16, 2048)
    assert (state.thp, state.shmem_thp) == ("always", "advise")
    assert 600 << 10 < state.memory_kib < 768 << 10
    assert state.taint == 0
    assert state.release == guest.run("uname -r", LONG).stdout.strip()
    assert guest.run("cat /sys/devices/system/node/node[01]/cpulist", LONG).stdout.split() == ["0-1", "2-3"]
    spread = "cat /sys/devices/system/node/node[01]/hugepages/hugepages-2048kB/nr_hugepages"
    assert guest.run(spread, LONG).stdout.split() == ["8", "8"]
    assert "rig.x=1" in guest.run("cat /proc/cmdline", LONG).stdout
    assert len(vm.vcpu_threads) == 4
    names = {Path(f"/proc/{vm.pid}/task/{thread}/comm").read_text().strip() for thread in vm.vcpu_threads}
    assert all(name.startswith("CPU ") for name in names)


def test_the_file_system_is_mounted_and_its_image_stays_as_it_was(numa: tuple[Vm, Guest], bench: Bench) -> None:
    _, guest = numa
    before = (bench.folder / "ext4").read_bytes()
    assert "/dev/vda /mnt/test ext4 " in guest.run("cat /proc/mounts", LONG).stdout
    assert guest.run("dd if=/dev/zero of=/mnt/test/x bs=1M count=20 && sync", LONG).ok
    assert (bench.folder / "ext4").read_bytes() == before


def test_programs_of_the_host_run_in_the_guest(numa: tuple[Vm, Guest]) -> None:
    _, guest = numa
    done = guest.run("/usr/bin/mke2fs -V", LONG)  # by its path: busybox has one of its own
    assert done.ok
    assert "mke2fs" in done.stderr


def test_a_guest_reaches_nobody(numa: tuple[Vm, Guest]) -> None:
    _, guest = numa
    assert not guest.run("nc -w 2 10.0.2.2 22 </dev/null", LONG).ok
    assert not guest.run("nc -w 2 10.0.2.3 53 </dev/null", LONG).ok


def test_an_endless_loop_is_killed_in_the_guest(numa: tuple[Vm, Guest]) -> None:
    _, guest = numa
    done = guest.run("echo started; (while :; do :; done) & while :; do :; done", 3.0)
    assert done.timed_out
    assert done.stdout == "started\n"
    deadline = Deadline(LONG)
    # A loop is the only thing that can be running besides the shell that asks.
    while "R" in guest.run('awk \'$3 == "R" && $1 > 2 && $2 == "(sh)"\' /proc/[0-9]*/stat', LONG).stdout:
        assert not deadline.expired
        time.sleep(0.2)


def test_what_is_written_to_kmsg_is_on_the_console(numa: tuple[Vm, Guest]) -> None:
    vm, guest = numa
    assert guest.run("for i in $(seq 1 300); do echo note $i; done >/dev/kmsg", LONG).ok
    deadline = Deadline(LONG)
    while "note 300" not in (text := vm.console_path.read_text(errors="replace")):
        assert not deadline.expired
        time.sleep(0.05)
    assert "suppressed" not in text


def test_openssh_logs_in_with_the_pinned_key(numa: tuple[Vm, Guest], bench: Bench) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    vm, _ = numa
    done = subprocess.run(
        [*keys.ssh_argv(bench.keys, vm.port), "echo hello"], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.stdout == "hello\n", done.stderr


@pytest.mark.parametrize("fs", ["tmpfs", "xfs"])
def test_the_other_file_systems(bench: Bench, tmp_path: Path, fs: str) -> None:
    with bench.machine(tmp_path, Shape(shmem_thp="always"), fs) as (vm, guest):
        mounts = guest.run("grep /mnt/test /proc/mounts", LONG).stdout
        assert f" {fs} " in mounts
        assert fs != "tmpfs" or "huge=always" in mounts
        guest.run("poweroff -f", LONG)
        end = vm.wait_end(LONG)
    assert end is not None
    assert end.kind is EndKind.POWEROFF


def test_a_crash_is_a_reset_with_its_panic_on_the_console(bench: Bench, tmp_path: Path) -> None:
    with bench.machine(tmp_path, Shape()) as (vm, guest):
        done = guest.run("echo c >/proc/sysrq-trigger; sleep 1000", LONG)
        assert done.lost
        end = vm.wait_end(LONG)
    assert end is not None
    assert end.kind is EndKind.RESET
    assert not end.host_fault
    assert "Kernel panic - not syncing: sysrq triggered crash" in vm.console_path.read_text(errors="replace")


def test_a_machine_that_cannot_be_set_up_says_why(bench: Bench, tmp_path: Path) -> None:
    spec = bench.spec(Shape(thp="sometimes"))
    with Vm.start(spec, tmp_path / "vm") as vm:
        outcome, guest = reach(vm, bench.keys, Deadline(BOOT))
    assert guest is None
    assert outcome.kind is BootKind.BROKEN
    assert "does not take 'sometimes'" in outcome.detail


def test_a_kernel_that_dies_before_init_dies_early(bench: Bench, tmp_path: Path) -> None:
    with Vm.start(bench.spec(Shape(cmdline=("rdinit=/nothing", "init=/nothing"))), tmp_path / "vm") as vm:
        outcome, _ = reach(vm, bench.keys, Deadline(BOOT))
    assert outcome.kind is BootKind.DIED
    assert outcome.end is not None
    assert outcome.end.kind is EndKind.RESET
    assert "Kernel panic" in vm.console_path.read_text(errors="replace")


def test_what_is_not_a_kernel_is_the_hosts_fault(bench: Bench, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"no kernel" * 1000)
    spec = VmSpec(kernel=junk, initrd=bench.initrd, machine=Shape(), accelerator="tcg")
    with pytest.raises(HostError):
        Vm.start(spec, tmp_path / "vm")


def test_sysrq_gets_through_to_a_guest(bench: Bench, tmp_path: Path) -> None:
    with bench.machine(tmp_path, Shape()) as (vm, guest):
        if not guest.run("zcat /proc/config.gz | grep -q CONFIG_MAGIC_SYSRQ_SERIAL=y", LONG).ok:
            pytest.skip("the kernel has no CONFIG_MAGIC_SYSRQ_SERIAL")
        guest.run("echo 1 >/proc/sys/kernel/sysrq", LONG)
        vm.sysrq("w")
        deadline = Deadline(LONG)
        while "sysrq: Show Blocked State" not in vm.console_path.read_text(errors="replace"):
            assert not deadline.expired
            time.sleep(0.05)
