"""Which accelerator runs the guests: KVM only where it has been seen to run one.

/dev/kvm can exist, open and create a machine, and still not run a kernel: nested virtualisation without the right CPU
features aborts ("failed to set MSR") or spins for ever. So a machine is booted until init switches it off, once per
boot of the host, and the answer is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rig import proc
from rig.errors import ConfigError, HostError
from rig.machines.qemu import VmSpec, Wiring, argv, version
from rig.store import write_atomically

KVM_DEVICE = Path("/dev/kvm")

#: Seconds a bare guest has to boot and switch itself off. KVM takes one, TCG about two; a loaded host some more.
KVM_SECONDS = 20.0
TCG_SECONDS = 120.0

#: What init prints on the console of a bare machine (rig/guests/guestfiles/init).
_MARK = "rig: bare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What runs the guests, and why."""

    name: str  # kvm or tcg
    reason: str  # one sentence, for the log and every result


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeMachine:
    """The smallest machine that shows whether an accelerator works. Two CPUs: the second is started in another way."""

    name: str = "probe"
    cpus: int = 2
    sockets: int = 1
    nodes: int = 1
    memory_mib: int = 512
    hugepages: int = 0
    thp: str = "never"
    shmem_thp: str = "never"
    cmdline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a bare boot showed."""

    booted: bool
    hung: bool  # it was still running at the deadline
    evidence: str  # one line


def boot_bare(kernel: Path, image: Path, accelerator: str, seconds: float) -> Probe:
    """Boot `kernel` until init switches the machine off, and return what was seen."""
    spec = VmSpec(kernel=kernel, initrd=image, machine=ProbeMachine(), accelerator=accelerator, bare=True)
    wiring = Wiring(console="null", channel="stdio,signal=off", qmp=None)
    done = proc.run(argv(spec, wiring), timeout=seconds)
    said = done.stderr.strip().splitlines()
    if done.timed_out:
        return Probe(booted=False, hung=True, evidence=f"it did not boot within {seconds:g} s")
    if done.ok and _MARK in done.stdout:
        return Probe(booted=True, hung=False, evidence=f"it booted and switched off in {done.seconds:.1f} s")
    how = f"signal {-done.status}" if done.status < 0 else f"status {done.status}"
    return Probe(booted=False, hung=False, evidence=f"QEMU ended with {how}: {said[-1] if said else 'no message'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvmAnswer:
    """Whether KVM runs a kernel on this host."""

    works: bool
    evidence: str  # one line


def choose(wanted: str, kernel: Path, image: Path, cache: Path) -> Accelerator:
    """Return the accelerator to use when the configuration says `wanted` (auto, kvm or tcg).

    `kernel` should be one that is known to boot (the base); `image` is a guest image. What KVM could do is kept in the
    directory `cache` until the host reboots or QEMU changes. Raises HostError when KVM is asked for and does not work.
    """
    if wanted not in ("auto", "kvm", "tcg"):
        raise ConfigError(f"accel: {wanted!r}: expected auto, kvm or tcg")
    if wanted == "tcg":
        return Accelerator(name="tcg", reason="TCG (emulation), as the configuration asks")
    answer = _device_answer() or _kept_answer(kernel, image, cache, insist=wanted == "kvm")
    if answer.works:
        return Accelerator(name="kvm", reason=f"KVM: {answer.evidence}")
    if wanted == "kvm":
        raise HostError(
            f"the configuration asks for KVM, which does not work here: {answer.evidence}",
            hint="use accel: auto, which falls back to TCG, or repair KVM (in a VM: enable nested virtualisation)",
        )
    return Accelerator(name="tcg", reason=f"TCG (emulation), because KVM does not work here: {answer.evidence}")


def _device_answer() -> KvmAnswer | None:
    """Answer without a boot where the device already says no."""
    if not KVM_DEVICE.exists():
        return KvmAnswer(works=False, evidence=f"this host has no {KVM_DEVICE}")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return KvmAnswer(works=False, evidence=f"{KVM_DEVICE} is not ours to open (join the group kvm)")
    return None


def _kept_answer(kernel: Path, image: Path, cache: Path, *, insist: bool) -> KvmAnswer:
    """Return the answer of this boot of the host, probing when there is none, or when it is no and we `insist`."""
    file = cache / f"kvm-{_key()}.json"
    try:
        kept = KvmAnswer(**json.loads(file.read_text()))
        if kept.works or not insist:
            return replace(kept, evidence=f"{kept.evidence} (seen earlier in this boot of the host)")
    except (OSError, ValueError, TypeError):
        pass  # nothing kept, or nothing that can be read: probe
    answer, sure = _probe(kernel, image)
    if sure:
        write_atomically(file, json.dumps(asdict(answer)))
    return answer


def _probe(kernel: Path, image: Path) -> tuple[KvmAnswer, bool]:
    """Return the answer and whether it says something about KVM rather than about this kernel."""
    kvm = boot_bare(kernel, image, "kvm", KVM_SECONDS)
    if not kvm.hung:
        return KvmAnswer(works=kvm.booted, evidence=kvm.evidence), True
    # A kernel that hangs by itself would hang under TCG as well; then nothing is known about KVM.
    tcg = boot_bare(kernel, image, "tcg", TCG_SECONDS)
    more = "" if tcg.booted else f", and neither does it boot under TCG: {tcg.evidence}"
    return KvmAnswer(works=False, evidence=kvm.evidence + more), tcg.booted


def _key() -> str:
    """What the answer holds for: this boot of the host and this QEMU."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.sha256(f"{boot}\n{version()}".encode()).hexdigest()[:16]
