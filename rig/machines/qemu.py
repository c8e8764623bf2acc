"""The QEMU command line as a pure function of the machine that is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rig import proc
from rig.errors import ConfigError

QEMU = "qemu-system-x86_64"

#: Guest address and port that the host's forwarded port leads to (QEMU's user network gives the guest 10.0.2.0/24).
GUEST_SSH = "10.0.2.15:22"


class MachineShape(Protocol):
    """What the builder needs to know of a configured machine."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    @property
    def cpus(self) -> int:
        """Virtual CPUs."""

    @property
    def sockets(self) -> int:
        """Sockets they are spread over."""

    @property
    def nodes(self) -> int:
        """NUMA nodes."""

    @property
    def memory_mib(self) -> int:
        """Memory in MiB."""

    @property
    def hugepages(self) -> int:
        """Number of 2 MiB hugetlb pages."""

    @property
    def thp(self) -> str:
        """Policy of transparent huge pages: always, madvise or never."""

    @property
    def shmem_thp(self) -> str:
        """The same for shmem and tmpfs: never, advise, within_size or always."""

    @property
    def cmdline(self) -> tuple[str, ...]:
        """Extra kernel parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StallPlugin:
    """The plugin that stalls vCPUs (see perturbation/stalls.py), and the file through which it is told when."""

    library: Path
    control: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """Everything the guest sees, and the accelerator that runs it."""

    kernel: Path  # bzImage
    initrd: Path
    machine: MachineShape
    accelerator: str  # kvm or tcg
    filesystem: str | None = None  # tmpfs, or what `disk` holds; mounted on /mnt/test
    disk: Path | None = None  # raw image, never written to
    bare: bool = False  # power off as soon as init runs
    cmdline: tuple[str, ...] = ()  # after the machine's own
    stalls: StallPlugin | None = None  # TCG only


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where QEMU's channels lead: character device back ends, without the id."""

    console: str
    channel: str  # the rig's own serial port
    qmp: str | None  # None: no QMP, and the guest starts at once instead of waiting for `cont`

    @classmethod
    def inherited(cls, channel: int, qmp: int) -> Wiring:
        """Connected sockets that QEMU inherits under these numbers: no path, no port, no race, and nobody else's.

        The console is QEMU's standard input and output, for which the rig uses pipes: QEMU writes it byte by byte, and
        a pipe holds 64 Ki of such writes where a socket is full after 300, at which the guest would be stalled.
        """
        return cls(console="stdio,signal=off", channel=f"socket,fd={channel}", qmp=f"socket,fd={qmp}")


#: For a person at a terminal: the console on standard output (Ctrl-A X ends QEMU), init's messages dropped.
TERMINAL = Wiring(console="stdio,mux=on,signal=off", channel="null", qmp=None)

#: Kernel parameters of every guest: (parameter, why). A kernel that does not know one ignores it.
CMDLINE: tuple[tuple[str, str], ...] = (
    ("console=ttyS0", "the console that is kept as evidence"),
    ("earlycon=uart8250,io,0x3f8,115200", "a kernel that dies before the console driver must not die silently"),
    ("loglevel=7", "everything but debug messages"),
    ("printk.devkmsg=on", "workloads mirror their results to /dev/kmsg; without this they are rate-limited"),
    ("panic=-1", "reboot at once, which -no-reboot turns into QEMU's exit"),
    ("oops=panic", "after an oops nothing the guest says counts"),
    ("softlockup_panic=1", "a CPU stuck for 2 x watchdog_thresh seconds does not come back"),
    ("watchdog_thresh=20", "more vCPUs than cores make stalls of seconds that are nobody's fault"),
    ("rcupdate.rcu_cpu_stall_timeout=60", "the same; the default is 21 s"),
    ("nokaslr", "addresses that can be compared between trials"),
    ("no_timer_check", "the boot-time check of the timer interrupt fails on a loaded host"),
    ("random.trust_cpu=on", "the random pool is ready before sshd asks for it"),
    ("8250.nr_uarts=2", "the console and the rig's channel; probing more takes time"),
)
# Not here, because they cost every boot: page_poison=1 (1.3 s per GiB of guest memory under TCG) and page_owner=on
# (0.5 s). A machine that wants them lists them in its own `cmdline`.

#: Per accelerator.
ACCELERATOR_CMDLINE: dict[str, tuple[tuple[str, str], ...]] = {
    "kvm": (),
    "tcg": (
        ("tsc=reliable", "emulated TSCs are one host clock; the watchdog would call them unstable on a loaded host"),
    ),
}

#: What QEMU itself may do. User networking and disk snapshots work under all of these.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def version() -> str:
    """Return the version of QEMU, as it prints it; raises HostError when it is not installed."""
    return proc.check([QEMU, "--version"], timeout=20).splitlines()[0].removeprefix("QEMU emulator version ")


def kernel_cmdline(spec: VmSpec) -> str:
    """Return the kernel command line of `spec`."""
    machine = spec.machine
    words = [word for word, _ in (*CMDLINE, *ACCELERATOR_CMDLINE[spec.accelerator])]
    if machine.hugepages:
        words += ["hugepagesz=2M", f"hugepages={machine.hugepages}"]  # at boot, spread over the nodes
    words += [f"rig.thp={machine.thp}", f"rig.shmem_thp={machine.shmem_thp}"]
    if spec.filesystem:
        words.append(f"rig.fs={spec.filesystem}")
    if spec.bare:
        words.append("rig.bare")
    return " ".join((*words, *machine.cmdline, *spec.cmdline))


def quoted(path: Path) -> str:
    """Return a path as it stands in an option list, where a comma is written twice."""
    return str(path).replace(",", ",,")


def even_parts(total: int, parts: int) -> tuple[int, ...]:
    """Split `total` into `parts` that differ by at most one and add up to it, the larger first."""
    return tuple(total // parts + (index < total % parts) for index in range(parts))


def _numa(machine: MachineShape) -> Iterable[str]:
    if machine.nodes == 1:
        return
    first = 0
    # In units of 2 MiB, so that every node can hold whole huge pages.
    sizes = even_parts(machine.memory_mib // 2, machine.nodes)
    for node, (half, cpus) in enumerate(zip(sizes, even_parts(machine.cpus, machine.nodes), strict=True)):
        yield from ("-object", f"memory-backend-ram,id=node{node},size={2 * half}M")
        yield from ("-numa", f"node,nodeid={node},cpus={first}-{first + cpus - 1},memdev=node{node}")
        first += cpus


def _check(spec: VmSpec) -> None:
    machine = spec.machine
    if machine.cpus % machine.sockets:
        raise ConfigError(
            f"machine {machine.name}: {machine.cpus} CPUs cannot be spread over {machine.sockets} sockets"
        )
    if machine.nodes > machine.cpus:
        raise ConfigError(f"machine {machine.name}: more NUMA nodes ({machine.nodes}) than CPUs ({machine.cpus})")
    if machine.memory_mib % 2:
        raise ConfigError(f"machine {machine.name}: memory must be an even number of MiB")
    if machine.hugepages * 2 >= machine.memory_mib:
        raise ConfigError(f"machine {machine.name}: {machine.hugepages} huge pages do not fit in its memory")
    if (spec.disk is None) != (spec.filesystem in (None, "tmpfs")):
        raise ConfigError(f"machine {machine.name}: file system {spec.filesystem} and disk {spec.disk} do not match")
    if spec.accelerator not in ACCELERATOR_CMDLINE:
        raise ConfigError(f"accelerator {spec.accelerator}: expected kvm or tcg")
    if spec.stalls is not None and spec.accelerator != "tcg":
        raise ConfigError(f"machine {machine.name}: a stall plugin, which only TCG can run, not {spec.accelerator}")


def argv(spec: VmSpec, wiring: Wiring = TERMINAL) -> tuple[str, ...]:
    """Return the command that runs `spec`; raises ConfigError for a machine that cannot be."""
    _check(spec)
    machine = spec.machine
    kvm = spec.accelerator == "kvm"
    words = [
        QEMU,
        *("-name", f"rig-{machine.name},debug-threads=on"),  # vCPU threads named "CPU 0/TCG", "CPU 0/KVM", ...
        *("-no-user-config", "-nodefaults", "-display", "none"),
        *("-sandbox", SANDBOX),
        *("-machine", "q35"),
        # Never -icount with TCG: it runs all vCPUs in one thread, and there is no race left to find.
        *("-accel", "kvm" if kvm else "tcg,thread=multi"),
        *("-cpu", "host" if kvm else "max"),
        *("-smp", f"cpus={machine.cpus},sockets={machine.sockets},cores={machine.cpus // machine.sockets},threads=1"),
        *("-m", f"{machine.memory_mib}M"),
        *_numa(machine),
        "-no-reboot",
        *("-kernel", str(spec.kernel)),
        *("-initrd", str(spec.initrd)),
        *("-append", kernel_cmdline(spec)),
        *("-chardev", f"{_with_id(wiring.console, 'console')}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"{_with_id(wiring.channel, 'channel')}"),
        *("-serial", "chardev:channel"),
        *("-object", "rng-random,id=random,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=random"),
        # Port 0: the kernel of the host picks a free one, and QMP tells which. No option ROM: nothing boots from it.
        *("-netdev", f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-{GUEST_SSH}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]
    if spec.disk is not None:
        # All writes go to an unlinked temporary file, so one disk serves any number of trials at once. A host that
        # runs out of space stops the guest: an I/O error in the guest would be blamed on its kernel.
        options = "format=raw,if=none,snapshot=on,cache=unsafe,discard=unmap,werror=stop,rerror=stop"
        words += ["-drive", f"id=test,file={quoted(spec.disk)},{options}", "-device", "virtio-blk-pci,drive=test"]
    if spec.stalls is not None:
        words += ["-plugin", f"file={quoted(spec.stalls.library)},ctl={quoted(spec.stalls.control)}"]
    if wiring.qmp is not None:
        words += ["-chardev", _with_id(wiring.qmp, "qmp"), "-mon", "chardev=qmp,mode=control", "-S"]
    return tuple(words)


def _with_id(backend: str, name: str) -> str:
    """Insert the id after the type: `socket,fd=3` becomes `socket,id=console,fd=3`."""
    kind, comma, options = backend.partition(",")
    return f"{kind},id={name}{comma}{options}"
