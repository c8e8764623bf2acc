"""The stalling module on a real kernel: it is built beside it, loads, stalls, tells what it did, and goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rig import proc
from rig.clock import Deadline
from rig.errors import BuildError
from rig.front.ui import Ui
from rig.guests import image, keys
from rig.kernels.build import Builder
from rig.kernels.make import make_argv, make_environment
from rig.machines import accel
from rig.machines.guest import Guest, reach
from rig.machines.qemu import VmSpec
from rig.machines.vm import Vm
from rig.model import Kernel
from rig.perturbation import kmod
from rig.perturbation.gueststalls import CONTROL, Arsenal, GuestStalls, Settings, arsenal, parse_stats
from rig.perturbation.instructions import Place, sample, spans_of
from rig.pipeline import Pipeline
from rig.splats.scanner import Scanner
from rig.trials.oracles import new_taints

pytestmark = pytest.mark.boot

BOOT = 300.0  # seconds; deadlines that only a broken machine reaches
LONG = 120.0
FUNCTIONS = ("filemap_map_pages", "next_uptodate_folio", "set_pte_range", "filemap_fault", "truncate_inode_pages_range")
#: Maps a file that nobody has mapped before, and goes through FUNCTIONS to do so.
FAULTS = "cp /usr/bin/busybox /mnt/test/cat && /mnt/test/cat /etc/passwd && rm /mnt/test/cat"
SETTINGS = Settings(places=48, mean=50, length_us=2000)


@pytest.fixture(scope="module")
def made(real_pipeline: Pipeline, built_kernel: Kernel) -> Arsenal:
    listing = proc.check(["nm", "-S", "--defined-only", built_kernel.vmlinux], timeout=LONG)
    (flavour,) = real_pipeline.flavours
    return arsenal(real_pipeline.builder, built_kernel, flavour, spans_of(FUNCTIONS, listing), SETTINGS)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every machine of these tests needs."""

    folder: Path
    kernel: Path
    initrd: Path
    keys: keys.RunKeys
    accelerator: str

    @contextmanager
    def machine(self, cpus: int, name: str) -> Iterator[tuple[Vm, Guest]]:
        spec = VmSpec(
            kernel=self.kernel,
            initrd=self.initrd,
            machine=accel.ProbeMachine(name="test", cpus=cpus, memory_mib=768),
            accelerator=self.accelerator,
            filesystem="tmpfs",
            disk=None,
        )
        with Vm.start(spec, self.folder / name) as vm:
            outcome, guest = reach(vm, self.keys, Deadline(BOOT))
            assert guest is not None, outcome
            with guest:
                yield vm, guest


@pytest.fixture(scope="module")
def bench(real_pipeline: Pipeline, built_kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("stalls")
    run_keys = keys.make_keys(folder / "keys")
    initrd = image.run_image(folder / "run.cpio", real_pipeline.base_image, run_keys)
    chosen = accel.choose("auto", built_kernel.bzimage, initrd, folder / "cache")
    return Bench(folder=folder, kernel=built_kernel.bzimage, initrd=initrd, keys=run_keys, accelerator=chosen.name)


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
    config = tmp_path / "config"
    config.write_text(built_kernel.config.read_text().replace("CONFIG_MODULES=y", "# CONFIG_MODULES is not set"))
    (flavour,) = real_pipeline.flavours
    with pytest.raises(BuildError, match="without CONFIG_MODULES takes no stalls"):
        kmod.module(real_pipeline.builder, replace(built_kernel, config=config), flavour)


def _everywhere(made: Arsenal, guest: Guest, seed: int) -> GuestStalls:
    """Stalls in all functions; a trial of its own draws some of them."""
    return GuestStalls(guest, made.module, sample(made.groups, SETTINGS.places, seed), seed, SETTINGS)


def test_stalls_happen_and_accuse_nobody(made: Arsenal, bench: Bench) -> None:
    with bench.machine(4, "stalls") as (vm, guest):
        before = guest.read_state().taint
        with _everywhere(made, guest, 1) as stalls:
            done = guest.run("truncate-race --dir /mnt/test --seed 1 --budget 5", LONG)
            assert done.ok, done.stdout + done.stderr
        assert len(stalls.counts) == SETTINGS.places
        assert stalls.report.means == "kprobes"
        assert stalls.report.stalled > 0
        assert stalls.report.stalls == sum(one.stalls for one in stalls.counts)
        assert sum(one.stalls for one in stalls.counts if one.place.symbol == "filemap_map_pages") > 0
        for one in stalls.counts:
            assert one.stalls + one.declined <= one.hits
            assert one.used or (one.hits, one.stalls) == (0, 0)
        # Off is off: the places are run through again, and nothing is counted.
        assert guest.run(FAULTS, LONG).ok
        assert parse_stats(guest.run(f"cat {CONTROL}/stats", LONG).stdout) == stalls.counts
        after = guest.read_state().taint
        assert after & ~before == 1 << 12  # out of tree, and nothing else
        assert new_taints(before, after) == ""
        scanner = Scanner()
        assert [*scanner.feed(vm.console_path.read_bytes()), *scanner.finish()] == []


def test_the_module_can_be_taken_out_and_put_in_again(made: Arsenal, bench: Bench) -> None:
    """On one CPU, for the reason that the head of gueststalls.py gives; there nothing stalls, as nobody else moves."""
    with bench.machine(1, "unload") as (vm, guest):
        for seed in (1, 2, 3):
            with _everywhere(made, guest, seed) as stalls:
                assert "rig_stall " in guest.run("cat /proc/modules", LONG).stdout
                assert guest.run(FAULTS, LONG).ok
            assert sum(one.hits for one in stalls.counts) > 0
            assert stalls.report.stalls == 0
            assert guest.run("rmmod rig_stall", LONG).ok
            assert "rig_stall" not in guest.run("cat /proc/modules", LONG).stdout
            assert not guest.run("ls /sys/kernel/debug/rig_stall", LONG).ok
            assert guest.run(FAULTS, LONG).ok
        scanner = Scanner()
        assert [*scanner.feed(vm.console_path.read_bytes()), *scanner.finish()] == []


def test_what_cannot_be_done_is_told_and_the_rest_is_done(made: Arsenal, bench: Bench) -> None:
    whole = [place for group in made.groups for place in group]
    good = next(place for place in whole if place.symbol == "filemap_map_pages")
    starts = {place.offset for place in whole if place.symbol == "filemap_map_pages"}
    middle = next(offset for offset in range(min(starts), max(starts)) if offset not in starts and offset - 1 in starts)
    places = [
        Place(symbol="no_such_function", offset=0),
        Place(symbol="filemap_map_pages", offset=middle),
        Place(symbol="do_syscall_64", offset=0),  # noinstr
        good,
    ]
    with bench.machine(2, "refused") as (_, guest):
        for settings in (
            Settings(length_us=20_001),
            Settings(mean=0),
            Settings(length_us=499),
            Settings(shortest_us=0),
        ):
            with GuestStalls(guest, made.module, (good,), 3, settings) as stalls:
                pass
            assert stalls.report.note.startswith("no stalls by kprobes: the module does not load")
        assert "rig_stall" not in guest.run("cat /proc/modules", LONG).stdout

        with GuestStalls(guest, made.module, places, 3, SETTINGS) as stalls:
            assert guest.run(FAULTS, LONG).ok
        assert [one.place for one in stalls.counts] == places
        assert [one.used for one in stalls.counts] == [False, False, False, True]
        assert stalls.report.note == "the kernel takes no kprobe at 3 of 4 places"
        assert stalls.counts[-1].hits > 0


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
