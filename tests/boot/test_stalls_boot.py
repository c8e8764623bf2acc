"""Directed stalls on a real kernel under real QEMU: in the functions that were asked for, and only when switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest

from rig.clock import Deadline
from rig.guests import image, keys
from rig.machines import accel
from rig.machines.guest import Guest, reach
from rig.machines.qemu import StallPlugin, VmSpec
from rig.machines.vm import Vm
from rig.model import Kernel, Side
from rig.perturbation import instructions, plugin, stalls
from rig.perturbation.stallctl import Block
from rig.perturbation.stalls import Episode, Kit, Stalls
from rig.pipeline import Pipeline
from rig.touches import functions
from rig.touches.functions import Kind
from rig.touches.targets import Finder, Targets
from rig.touches.touched import Function

pytestmark = pytest.mark.boot

BOOT = 300.0  # seconds; a deadline that only a broken machine reaches
LONG = 120.0

#: A pipe is written and read all the time, and never resized.
NAMES = ("pipe_write", "pipe_read", "pipe_resize_ring")

Shape = partial(accel.ProbeMachine, name="test", cpus=2)


@pytest.fixture(scope="module")
def library(real_pipeline: Pipeline) -> Path:
    made = plugin.get(real_pipeline.store, real_pipeline.builder.compiler)
    assert made.library is not None, made.note
    return made.library


def targets_of(kernel: Kernel) -> Targets:
    symbols = functions.read_symbols(kernel.vmlinux)
    wanted = [Function("fs/pipe.c", name) for name in NAMES]
    return Targets(spans=functions.placed(functions.own_ranges(wanted, symbols), symbols))


@contextmanager
def machine(kernel: Kernel, made: StallPlugin, folder: Path) -> Iterator[Guest]:
    run_keys = keys.make_keys(folder / "keys")
    base = image.base_image(folder / "base.cpio", binaries={})
    initrd = image.run_image(folder / "run.cpio", base, run_keys)
    spec = VmSpec(
        kernel=kernel.bzimage,
        initrd=initrd,
        machine=Shape(),
        accelerator="tcg",
        filesystem="tmpfs",
        stalls=made,
    )
    with Vm.start(spec, folder / "vm") as vm:
        outcome, guest = reach(vm, run_keys, Deadline(BOOT))
        assert guest is not None, outcome
        with guest:
            yield guest


def test_stalls_come_in_the_function_that_was_asked_for_and_only_while_switched_on(
    built_kernel: Kernel, library: Path, tmp_path: Path
) -> None:
    targets = targets_of(built_kernel)
    kit = Kit(library=library, targets={built_kernel.key: targets})
    made = stalls.write_control(tmp_path, kit, built_kernel.key, vcpus=2, share=0.2, seed=1)
    assert made is not None
    one = Episode(seconds=0.2, longest=0.002, share=0.2, rare=False, functions=frozenset(["pipe_write"]))
    command = "dd if=/dev/zero bs=64 count=20000 2>/dev/null | dd of=/dev/null bs=64 2>/dev/null"
    with machine(built_kernel, made, tmp_path) as guest:
        assert guest.run(command, LONG).ok
        with Block(made.control) as shared:  # sandboxed or not: QEMU has it, and did nothing
            assert shared.loaded
            assert all(count.executed == count.stalls == count.withheld == 0 for count in shared.counts())
        with Stalls(made.control, targets, repeat(one), 2) as running:
            assert guest.run(command, LONG).ok
        with Block(made.control) as shared:
            before = shared.counts()
            assert guest.run(command, LONG).ok
            assert shared.counts() == before
    report = running.report
    by_name = {found.function: found for found in report.functions}
    assert report.means == "tcg-plugin"
    assert report.stalls > 0
    assert report.stalled > 0
    assert by_name["pipe_write"].stalls == report.stalls
    assert by_name["pipe_write"].executed > 20_000
    assert by_name["pipe_read"].executed > 20_000
    assert by_name["pipe_read"].stalls == 0
    assert by_name["pipe_resize_ring"].executed == 0


def test_the_functions_of_a_series_are_found_in_its_kernels(
    real_pipeline: Pipeline, real_kernels: dict[tuple[str, Side], Kernel]
) -> None:
    finder = Finder(real_pipeline.applied, real_pipeline.store)
    names = {one.name for one in finder.touched}
    assert {"filemap_map_pages", "next_uptodate_folio", "filemap_map_order0_folio"} <= names
    made = finder.targets(real_kernels.values())
    for kernel in real_kernels.values():
        found = made[kernel.key]
        assert not found.notes
        kinds = stalls.kinds_of(found)
        assert kinds["filemap_map_pages"] is Kind.TOUCHED
        assert kinds["filemap_map_order0_folio"] is Kind.INLINED
        assert kinds["set_pte_range"] is Kind.CALLEE
        inner = [span for span in found.spans if span.range.offset]
        spans = [(span.start, span.length) for span in inner]
        groups = instructions.read_places(kernel.vmlinux, spans, instructions.read_names(kernel.vmlinux))
        assert any(groups)
        for span, places in zip(inner, groups, strict=True):
            named = [place for place in places if place.symbol == span.range.symbol]  # else relative to the anchor
            assert all(0 <= place.offset - span.range.offset < span.length for place in named)
    callees = [
        {name for name, kind in stalls.kinds_of(made[kernel.key]).items() if kind is Kind.CALLEE}
        for kernel in real_kernels.values()
    ]
    assert callees[0] == callees[1]
