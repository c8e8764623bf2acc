"""The QEMU command line: golden for both accelerators, and what must hold for every machine."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import ConfigError
from rig.machines.accel import ProbeMachine
from rig.machines.ends import EndKind, classify
from rig.machines.qemu import TERMINAL, MachineShape, StallPlugin, VmSpec, Wiring, argv, even_parts, kernel_cmdline
from rig.machines.qmp import QmpError
from rig.machines.vm import forwarded_port

Shape = partial(ProbeMachine, name="small", memory_mib=1024, thp="madvise")


def spec_of(machine: MachineShape | None = None, accelerator: str = "tcg") -> VmSpec:
    return VmSpec(
        kernel=Path("/store/bzImage"),
        initrd=Path("/run/initrd"),
        machine=machine or Shape(),
        accelerator=accelerator,
        filesystem="tmpfs",
    )


GOLDEN = """\
qemu-system-x86_64
-name rig-small,debug-threads=on
-no-user-config
-nodefaults
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine q35
-accel {accel}
-cpu {cpu}
-smp cpus=2,sockets=1,cores=2,threads=1
-m 1024M
-no-reboot
-kernel /store/bzImage
-initrd /run/initrd
-append {append}
-chardev stdio,id=console,signal=off
-serial chardev:console
-chardev socket,id=channel,fd=7
-serial chardev:channel
-object rng-random,id=random,filename=/dev/urandom
-device virtio-rng-pci,rng=random
-netdev user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22
-device virtio-net-pci,netdev=net,romfile=
-chardev socket,id=qmp,fd=8
-mon chardev=qmp,mode=control
-S
"""


def as_lines(command: tuple[str, ...]) -> str:
    """One option with its value per line."""
    return " ".join(command).replace(" -", "\n-") + "\n"


@pytest.mark.parametrize(("accelerator", "accel", "cpu"), [("tcg", "tcg,thread=multi", "max"), ("kvm", "kvm", "host")])
def test_golden(accelerator: str, accel: str, cpu: str) -> None:
    spec = spec_of(accelerator=accelerator)
    expected = GOLDEN.format(accel=accel, cpu=cpu, append=kernel_cmdline(spec))
    assert as_lines(argv(spec, Wiring.inherited(7, 8))) == expected


def test_golden_kernel_command_line() -> None:
    machine = Shape(hugepages=16, cmdline=("page_poison=1",))
    assert kernel_cmdline(replace(spec_of(machine), cmdline=("extra",))) == (
        "console=ttyS0 earlycon=uart8250,io,0x3f8,115200 loglevel=7 printk.devkmsg=on panic=-1 oops=panic "
        "softlockup_panic=1 watchdog_thresh=20 rcupdate.rcu_cpu_stall_timeout=60 nokaslr no_timer_check "
        "random.trust_cpu=on 8250.nr_uarts=2 tsc=reliable hugepagesz=2M hugepages=16 rig.thp=madvise "
        "rig.shmem_thp=never rig.fs=tmpfs page_poison=1 extra"
    )


def test_a_person_can_run_it() -> None:
    command = argv(spec_of(), TERMINAL)
    assert "-S" not in command
    assert not any("fd=" in word for word in command)
    assert "stdio,id=console,mux=on,signal=off" in command


def test_numa_golden() -> None:
    machine = Shape(cpus=4, sockets=2, nodes=2, memory_mib=1022)
    command = as_lines(argv(spec_of(machine)))
    assert "-smp cpus=4,sockets=2,cores=2,threads=1\n" in command
    assert (
        "-object memory-backend-ram,id=node0,size=512M\n-numa node,nodeid=0,cpus=0-1,memdev=node0\n"
        "-object memory-backend-ram,id=node1,size=510M\n-numa node,nodeid=1,cpus=2-3,memdev=node1\n" in command
    )


def test_a_disk_is_never_written_to_and_its_errors_are_the_hosts() -> None:
    command = argv(replace(spec_of(), filesystem="ext4", disk=Path("/a,b/disk")))
    drive = command[command.index("-drive") + 1]
    assert drive.startswith("id=test,file=/a,,b/disk,")
    assert {"snapshot=on", "werror=stop", "rerror=stop"} <= set(drive.split(","))


MACHINES = st.builds(
    Shape,
    cpus=st.integers(1, 64),
    sockets=st.integers(1, 8),
    nodes=st.integers(1, 8),
    memory_mib=st.integers(128, 8192),
    hugepages=st.integers(0, 512),
)


@given(MACHINES, st.sampled_from(["kvm", "tcg"]))
def test_every_possible_machine_adds_up(machine: MachineShape, accelerator: str) -> None:
    try:
        command = argv(spec_of(machine, accelerator), Wiring.inherited(3, 4))
    except ConfigError:
        assert (
            machine.cpus % machine.sockets
            or machine.nodes > machine.cpus
            or machine.memory_mib % 2
            or 2 * machine.hugepages >= machine.memory_mib
        )
        return
    values: dict[str, list[str]] = {}
    for name, value in itertools.pairwise((*command, "")):
        values.setdefault(name, []).append(value)
    sizes = [int(o.rpartition("size=")[2][:-1]) for o in values["-object"] if o.startswith("memory-backend")]
    if machine.nodes > 1:
        assert len(sizes) == len(values["-numa"]) == machine.nodes
        assert sum(sizes) == machine.memory_mib
        assert all(size % 2 == 0 for size in sizes)
        assert max(sizes) - min(sizes) <= 2
        spans = [tuple(map(int, numa.split("cpus=")[1].split(",")[0].split("-"))) for numa in values["-numa"]]
        assert [cpu for low, high in spans for cpu in range(low, high + 1)] == list(range(machine.cpus))
    assert "-icount" not in command
    assert "-no-reboot" in command
    assert "-nodefaults" in command
    assert all("hostfwd=tcp:127.0.0.1:0-" in value and "restrict=on" in value for value in values["-netdev"])
    words = values["-append"][0].split()
    assert {"panic=-1", "oops=panic", "console=ttyS0"} <= set(words)
    assert (f"hugepages={machine.hugepages}" in words) == (machine.hugepages > 0)


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_even_parts(total: int, parts: int) -> None:
    made = even_parts(total, parts)
    assert sum(made) == total
    assert len(made) == parts
    assert max(made) - min(made) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpus": 3, "sockets": 2}, "cannot be spread"),
        ({"cpus": 2, "nodes": 4}, "more NUMA nodes"),
        ({"memory_mib": 1023}, "even number"),
        ({"memory_mib": 512, "hugepages": 256}, "do not fit"),
    ],
)
def test_an_impossible_machine_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        argv(spec_of(replace(Shape(), **change)))  # type: ignore[arg-type]  # integers go to integer fields


def test_a_file_system_needs_its_disk_and_tmpfs_has_none() -> None:
    for spec in (replace(spec_of(), filesystem="xfs"), replace(spec_of(), disk=Path("/d"))):
        with pytest.raises(ConfigError, match="do not match"):
            argv(spec)


# -- what comes back ------------------------------------------------------------------------------------------------


def test_the_forwarded_port() -> None:
    text = (
        "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[ESTABLISHED]   20       127.0.0.1 50000       10.0.2.15    22     0     0\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 44371       10.0.2.15    22     0     0\r\n"
    )
    assert forwarded_port(text) == 44371
    with pytest.raises(QmpError, match="no forwarded port"):
        forwarded_port("Hub -1 (net):\r\n")


@pytest.mark.parametrize(
    ("reason", "status", "frozen", "killed", "kind"),
    [
        ("guest-shutdown", 0, "", False, EndKind.POWEROFF),
        ("guest-shutdown", 0, "", True, EndKind.POWEROFF),  # it was first
        ("guest-reset", 0, "", False, EndKind.RESET),
        ("guest-panic", 0, "", False, EndKind.RESET),
        ("host-qmp-quit", 0, "", True, EndKind.KILLED),
        ("", -9, "", True, EndKind.KILLED),
        ("host-signal", 0, "", False, EndKind.QEMU_DIED),
        ("host-qmp-quit", 0, "", False, EndKind.QEMU_DIED),
        ("", 0, "", False, EndKind.QEMU_DIED),
        ("", -11, "", False, EndKind.QEMU_DIED),
        ("", -9, "no space", False, EndKind.STOPPED),
    ],
)
def test_the_end_of_a_machine(reason: str, status: int, frozen: str, killed: bool, kind: EndKind) -> None:
    assert classify(reason=reason, status=status, frozen=frozen, killed=killed)[0] is kind


def test_the_stall_plugin_is_loaded_under_tcg_and_refused_elsewhere() -> None:
    plugin = StallPlugin(library=Path("/store/stall.so"), control=Path("/run/a,b/stalls.ctl"))
    words = argv(replace(spec_of(), stalls=plugin))
    assert words[words.index("-plugin") + 1] == "file=/store/stall.so,ctl=/run/a,,b/stalls.ctl"
    assert "-plugin" not in argv(spec_of())
    with pytest.raises(ConfigError, match="TCG"):
        argv(replace(spec_of(accelerator="kvm"), stalls=plugin))
