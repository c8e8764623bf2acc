"""The probe's command line; how the answer is found is in tests/fake/test_vm.py."""

from __future__ import annotations

from pathlib import Path

from rig.machines.accel import ProbeMachine
from rig.machines.qemu import VmSpec, Wiring, argv, kernel_cmdline


def test_the_probe_powers_off_at_once_and_has_two_cpus() -> None:
    spec = VmSpec(kernel=Path("/k"), initrd=Path("/i"), machine=ProbeMachine(), accelerator="kvm", bare=True)
    assert "rig.bare" in kernel_cmdline(spec).split()
    command = argv(spec, Wiring(console="null", channel="stdio,signal=off", qmp=None))
    assert command[command.index("-smp") + 1].startswith("cpus=2,")
    assert "-S" not in command
