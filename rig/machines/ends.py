"""How far a machine comes in its boot and how it ends, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EndKind(StrEnum):
    """How a machine ended."""

    POWEROFF = "poweroff"  # the guest switched itself off
    RESET = "reset"  # the guest rebooted; with panic=-1 that is what a panic does
    QEMU_DIED = "qemu-died"  # the process ended for a reason that is not the guest's
    STOPPED = "stopped"  # QEMU froze the guest: the host is out of disk space, or KVM cannot emulate it
    KILLED = "killed"  # the rig ended it


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEnd:
    """How a machine ended, and the evidence."""

    kind: EndKind
    detail: str  # one sentence
    status: int  # QEMU's exit status, negative for a signal
    stderr: str  # the tail of what QEMU said
    last_line: str  # of the console

    @property
    def host_fault(self) -> bool:
        """Whether the machine was lost by the host, so that it says nothing about the kernel."""
        return self.kind in (EndKind.QEMU_DIED, EndKind.STOPPED)


class BootKind(StrEnum):
    """How far a boot came."""

    READY = "ready"
    DIED = "died-early"  # the machine ended first; see `end`
    HUNG = "hung-in-boot"
    BROKEN = "set-up-failed"  # init could not make the machine that was asked for
    NO_SSH = "never-answered-ssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootOutcome:
    """How far a boot came, and the evidence."""

    kind: BootKind
    detail: str  # one sentence
    stage: str  # the last that init reported: qemu (none), mount, network, machine, sshd or ready
    seconds: float  # since QEMU's start
    last_line: str  # of the console
    end: VmEnd | None = None  # when kind is DIED

    @property
    def ok(self) -> bool:
        """Whether the machine is there to be used."""
        return self.kind is BootKind.READY


def classify(*, reason: str, status: int, frozen: str, killed: bool) -> tuple[EndKind, str]:
    """Return how a machine ended and a sentence; `reason` is QMP's (ShutdownCause in qapi/run-state.json)."""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    if frozen:
        return EndKind.STOPPED, frozen
    if reason == "guest-shutdown":
        return EndKind.POWEROFF, "the guest switched itself off"
    if reason in ("guest-reset", "guest-panic"):
        return EndKind.RESET, "the guest reset itself, as it does after a panic"
    if killed:
        return EndKind.KILLED, "the rig ended the machine"
    if reason:
        return EndKind.QEMU_DIED, f"QEMU was told to end ({reason}, {how})"
    return EndKind.QEMU_DIED, f"QEMU ended without a reason ({how})"
