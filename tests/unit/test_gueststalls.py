"""Stalls in the guest: the commands, the module's statistics, and what becomes of a guest that does not play along."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from rig.machines.guest import Guest, GuestRun
from rig.perturbation.gueststalls import (
    ARM,
    CONTROL,
    DISARM,
    Arsenal,
    GuestStalls,
    PlaceCount,
    Settings,
    drawn,
    load_command,
    parse_stats,
)
from rig.perturbation.instructions import Place

STATS = """\
probe filemap_map_pages+0x1b4 hits 1200 stalls 7 open 2 ns 12500000 declined 3 missed 1
refused _stext+0x10 22
garbage
probe set_pte_range+0x0 hits 0 stalls 0 open 0 ns 0 declined 0 missed 0
"""
PLACES = (Place(symbol="filemap_map_pages", offset=0x1B4), Place(symbol="set_pte_range", offset=0))


class _Scripted:
    """A guest that answers as it is told, and notes what it was asked."""

    def __init__(self, *answers: GuestRun) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes | None]] = []

    def run(self, command: str, seconds: float, stdin: bytes | None = None) -> GuestRun:
        assert seconds > 0
        self.asked.append((command, stdin))
        return self.answers.pop(0)


def _done(status: int | None = 0, stdout: str = "", stderr: str = "", **more: Any) -> GuestRun:
    return GuestRun(status=status, stdout=stdout, stderr=stderr, seconds=0.1, **more)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    file = tmp_path / "rig_stall.ko"
    file.write_bytes(b"\x7fELF module")
    return file


def _stalls(guest: _Scripted, module: Path) -> GuestStalls:
    return GuestStalls(cast(Guest, guest), module, PLACES, 7, Settings())


def test_what_the_module_says_is_read_back() -> None:
    first, refused, last = parse_stats(STATS)
    assert first == PlaceCount(place=PLACES[0], hits=1200, stalls=7, open=2, seconds=0.0125, declined=3, missed=1)
    assert (refused.place, refused.refused, refused.used) == (Place(symbol="_stext", offset=16), 22, False)
    assert last.used
    assert last.hits == 0


def test_a_trial_loads_arms_and_switches_off(module: Path) -> None:
    guest = _Scripted(_done(), _done(), _done(stdout=STATS))
    with _stalls(guest, module) as stalls:
        assert guest.asked == [
            (load_command(Settings(), 7), b"\x7fELF module"),
            (ARM, b"filemap_map_pages+0x1b4\nset_pte_range+0x0\n"),
        ]
    assert guest.asked[2] == (DISARM, None)
    report = stalls.report
    assert (report.means, report.stalls, report.stalled) == ("kprobes", 7, 0.013)
    assert report.note == "the kernel takes no kprobe at 1 of 3 places"


def test_the_settings_reach_the_module() -> None:
    command = load_command(Settings(mean=11, length_us=222, shortest_us=44), 33)
    assert "seed=33 mean=11 length_us=222 shortest_us=44" in command


def _group(name: str, size: int) -> tuple[Place, ...]:
    return tuple(Place(symbol=name, offset=offset) for offset in range(size))


def test_a_trial_draws_settings_that_the_module_takes() -> None:
    groups = [*(_group(f"f{number}", 30) for number in range(20)), ()]
    seen = [drawn(Settings(), groups, seed) for seed in range(300)]
    assert seen == [drawn(Settings(), groups, seed) for seed in range(300)]
    for settings, places in seen:
        assert 1 <= settings.mean <= Settings().mean
        assert 1 <= settings.shortest_us <= settings.length_us <= Settings().length_us
        assert len(places) == min(Settings().places, 30 * len({place.symbol for place in places}))
    functions = {len({place.symbol for place in places}) for _, places in seen}
    assert min(functions) == 1  # all stalls in one function, in some trials
    assert max(functions) >= 14  # and nearly everywhere in others
    assert len({settings.length_us for settings, _ in seen}) > 100


def test_nothing_to_stall_is_nothing_drawn() -> None:
    assert drawn(Settings(), [()], 1)[1] == ()
    assert drawn(Settings(mean=1, length_us=1), [_group("f", 1)], 1)[0] == Settings(mean=1, length_us=1, shortest_us=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_done(1, stderr="insmod: can't insert: invalid module format\n"), "invalid module format"),
        (_done(None, timed_out=True), "not done in time"),
        (_done(None, lost=True), "the machine ended"),
        (_done(3), "status 3"),
    ],
)
def test_a_module_that_does_not_load_is_a_note(module: Path, answer: GuestRun, words: str) -> None:
    guest = _Scripted(answer)
    with _stalls(guest, module) as stalls:
        pass
    assert len(guest.asked) == 1  # nothing to arm, and nothing to switch off
    assert stalls.report.means == ""
    assert stalls.report.stalls == 0
    assert stalls.report.note.startswith("no stalls by kprobes: the module does not load")
    assert words in stalls.report.note


def test_a_module_file_that_is_gone_is_a_note(tmp_path: Path) -> None:
    guest = _Scripted()
    with _stalls(guest, tmp_path / "nothing.ko") as stalls:
        pass
    assert guest.asked == []
    assert "cannot be read" in stalls.report.note


def test_a_machine_that_crashed_keeps_its_own_story(module: Path) -> None:
    guest = _Scripted(_done(), _done(), _done(None, lost=True))
    with _stalls(guest, module) as stalls:
        pass
    assert stalls.report.note == "stalls by kprobes were not switched off: the machine ended"


def test_a_rig_that_is_interrupted_asks_the_guest_for_nothing(module: Path) -> None:
    guest = _Scripted(_done(), _done())

    def interrupted() -> None:
        with _stalls(guest, module):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(guest.asked) == 2


def test_each_seed_has_places_of_its_own(module: Path) -> None:
    arsenal = Arsenal(module=module, groups=(_group("f", 500),), settings=Settings(places=5))
    asked = []
    for seed in (1, 1, 2):
        guest = _Scripted(_done(), _done(), _done())
        with arsenal.stalls(cast(Guest, guest), seed):
            pass
        asked.append(guest.asked[1][1])
        assert f"seed={seed} " in guest.asked[0][0]
    assert asked[0] == asked[1] != asked[2]
    assert asked[0] is not None
    assert asked[0].count(b"\n") == 5


def test_the_commands_work_in_a_shell(tmp_path: Path, module: Path) -> None:
    """Against a folder in place of debugfs, and a program in place of insmod."""
    control, programs = tmp_path / "control", tmp_path / "bin"
    control.mkdir()
    programs.mkdir()
    (control / "stats").write_text(STATS)
    insmod = programs / "insmod"
    insmod.write_text(f'#!/bin/sh\necho "insmod $*" >>{tmp_path}/called\ncat "$1" >{tmp_path}/got\n')
    insmod.chmod(0o755)

    def run(command: str, stdin: bytes = b"") -> str:
        line = command.replace(CONTROL, str(control)).replace("/run/", f"{tmp_path}/")
        path = f"{programs}:/usr/bin:/bin"
        return subprocess.run(
            ["sh", "-c", line], input=stdin, env={"PATH": path}, check=True, capture_output=True
        ).stdout.decode()

    run(load_command(Settings(), 7), module.read_bytes())
    assert (tmp_path / "got").read_bytes() == b"\x7fELF module"
    assert not (tmp_path / "rig_stall.ko").exists()
    run(ARM, b"a+0x1\nb+0x2\n")
    assert (control / "probes").read_text() == "a+0x1\nb+0x2\n"
    assert (control / "on").read_text() == "1\n"
    assert run(DISARM) == STATS
    assert (control / "on").read_text() == "0\n"
    assert (tmp_path / "called").read_text().splitlines() == [
        f"insmod {tmp_path}/rig_stall.ko seed=7 mean=2000 length_us=10000 shortest_us=500",
    ]
