"""The stalling module on a real kernel: it is built beside it, loads, stalls, tells what it did, and goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import accel, image, keys, kmod, proc
from rig.build import Builder, make_argv, make_environment
from rig.clock import Deadline
from rig.errors import BuildError
from rig.guest import Guest, reach
from rig.gueststalls import Arsenal, GuestStalls, Settings, arsenal
from rig.instructions import Place, spans_of
from rig.model import Kernel
from rig.oracles import new_taints
from rig.pipeline import Pipeline
from rig.qemu import VmSpec
from rig.splats import Scanner
from rig.ui import Ui
from rig.vm import Vm

pytestmark = pytest.mark.boot

BOOT = 300.0  # seconds; deadlines that only a broken machine reaches
LONG = 120.0
FUNCTIONS = ("filemap_map_pages", "next_uptodate_folio", "set_pte_range", "filemap_fault", "truncate_inode_pages_range")
SETTINGS = Settings(places=48, mean=50, length_us=2000)


@pytest.fixture(scope="module")
def made(real_pipeline: Pipeline, built_kernel: Kernel) -> Arsenal:
    listing = proc.check(["nm", "-S", "--defined-only", built_kernel.vmlinux], timeout=LONG)
    (flavour,) = real_pipeline.flavours
    return arsenal(real_pipeline.builder, built_kernel, flavour, spans_of(FUNCTIONS, listing), SETTINGS)


@pytest.fixture(scope="module")
def machine(
    real_pipeline: Pipeline, built_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Vm, Guest]]:
    folder = tmp_path_factory.mktemp("stalls")
    made = keys.make_keys(folder / "keys")
    initrd = image.run_image(folder / "run.cpio", real_pipeline.base_image, made)
    chosen = accel.choose("auto", built_kernel.bzimage, initrd, folder / "cache")
    spec = VmSpec(
        kernel=built_kernel.bzimage,
        initrd=initrd,
        machine=accel.ProbeMachine(name="test", cpus=4, memory_mib=768),
        accelerator=chosen.name,
        filesystem="tmpfs",
        disk=None,
    )
    with Vm.start(spec, folder / "vm") as vm:
        outcome, guest = reach(vm, made, Deadline(BOOT))
        assert guest is not None, outcome
        with guest:
            yield vm, guest


def test_the_module_is_for_this_kernel_and_made_once(
    made: Arsenal, real_pipeline: Pipeline, built_kernel: Kernel
) -> None:
    assert kmod.vermagic(made.module.read_bytes()).split()[0] == built_kernel.release
    (flavour,) = real_pipeline.flavours
    before = made.module.stat().st_mtime_ns
    assert kmod.module(real_pipeline.builder, built_kernel, flavour) == made.module
    assert made.module.stat().st_mtime_ns == before


def test_a_kernel_without_modules_is_refused_with_a_reason(
    real_pipeline: Pipeline, built_kernel: Kernel, tmp_path: Path
) -> None:
    from dataclasses import replace

    config = tmp_path / "config"
    config.write_text(built_kernel.config.read_text().replace("CONFIG_MODULES=y", "# CONFIG_MODULES is not set"))
    (flavour,) = real_pipeline.flavours
    with pytest.raises(BuildError, match="without CONFIG_MODULES takes no stalls"):
        kmod.module(real_pipeline.builder, replace(built_kernel, config=config), flavour)


def test_stalls_happen_and_leave_no_trace(made: Arsenal, machine: tuple[Vm, Guest]) -> None:
    vm, guest = machine
    before = guest.read_state().taint
    for seed in (1, 2):  # the second time shows that it can be taken out and put in again
        with made.stalls(guest, seed) as stalls:
            assert "rig_stall " in guest.run("cat /proc/modules", LONG).stdout
            done = guest.run(f"truncate-race --dir /mnt/test --seed {seed} --budget 5", LONG)
            assert done.ok, done.stdout + done.stderr
        report = stalls.report
        assert len(stalls.counts) == SETTINGS.places
        assert report.kinds == ("kprobes",)
        assert report.steps > 0
        assert report.stalled > 0
        assert report.steps == sum(one.stalls for one in stalls.counts)
        assert sum(one.stalls for one in stalls.counts if one.place.symbol == "filemap_map_pages") > 0
        for one in stalls.counts:
            assert one.stalls + one.declined <= one.hits
            assert one.used or (one.hits, one.stalls) == (0, 0)
        assert "rig_stall" not in guest.run("cat /proc/modules", LONG).stdout
        assert not guest.run("ls /sys/kernel/debug/rig_stall", LONG).ok
    after = guest.read_state().taint
    assert after & ~before == 1 << 12  # out of tree, and nothing else
    assert new_taints(before, after) == ""
    scanner = Scanner()
    assert [*scanner.feed(vm.console_path.read_bytes()), *scanner.finish()] == []


def test_what_the_kernel_refuses_is_told_and_the_rest_is_used(made: Arsenal, machine: tuple[Vm, Guest]) -> None:
    _, guest = machine
    whole = [place for group in made.groups for place in group]
    good = next(place for place in whole if place.symbol == "filemap_fault")
    first = next(place for place in whole if place.symbol == "filemap_map_pages")
    starts = {place.offset for place in whole if place.symbol == "filemap_map_pages"}
    middle = next(
        offset for offset in range(first.offset + 1, max(starts)) if offset not in starts and offset - 1 in starts
    )
    places = [
        Place(symbol="no_such_function", offset=0),
        Place(symbol="filemap_map_pages", offset=middle),
        Place(symbol="do_syscall_64", offset=0),  # noinstr
        good,
    ]
    with GuestStalls(guest, made.module, places, 3, SETTINGS) as stalls:
        assert guest.run("cp /usr/bin/busybox /mnt/test/x && /mnt/test/x true", LONG).ok
    assert [one.place for one in stalls.counts] == places
    assert [one.used for one in stalls.counts] == [False, False, False, True]
    assert stalls.report.note == "the kernel takes no kprobe at 3 of 4 places"
    assert stalls.counts[-1].hits > 0


def test_settings_that_would_harm_the_guest_do_not_load(made: Arsenal, machine: tuple[Vm, Guest]) -> None:
    _, guest = machine
    for settings in (Settings(length_us=10_001), Settings(mean=0), Settings(length_us=0)):
        with GuestStalls(guest, made.module, (), 3, settings) as stalls:
            pass
        assert stalls.report.note.startswith("no stalls by kprobes: the module does not load")
    assert "rig_stall" not in guest.run("cat /proc/modules", LONG).stdout


def test_the_next_kernel_is_built_incrementally(real_pipeline: Pipeline, built_kernel: Kernel, tmp_path: Path) -> None:
    (flavour,) = real_pipeline.flavours
    builder = Builder(real_pipeline.applied, real_pipeline.store, Ui(quiet=True), jobs=2, timeout=7200, always=True)
    builder.kernels([0], [flavour])  # the object directory may be that of another series
    with builder.objects(0, flavour) as (source, objects):
        before = _times(objects)
        sources = [path for path in kmod.SOURCES.iterdir() if path.is_file()]
        kmod._build(source, objects, built_kernel, sources, tmp_path, LONG)
        again = proc.run(make_argv(source, objects, "bzImage"), timeout=LONG * 10, env=make_environment(objects))
        assert again.ok, again.stderr
        assert _times(objects) == before
        assert "  CC  " not in again.stdout


def _times(objects: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in objects.rglob("*.o")}
