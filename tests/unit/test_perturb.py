"""Jitter of vCPU threads: the plan keeps its bounds, and threads are left as they were found."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.perturbation.perturb import SHARE, Able, Jitter, Means, Rests, Step, Threads, means, plan

ROOT = Path(__file__).parents[2]
WAIT = 30.0  # seconds; only broken code takes so long
CPUS = sorted(os.sched_getaffinity(0))
ABLE = means()  # of whoever runs the tests
FAST = {"interval": 0.002, "length": 0.004}
Settings = Mapping[str, float]


# -- the plan ---------------------------------------------------------------------------------------------------------

settings = st.fixed_dictionaries({"interval": st.floats(0.001, 10), "length": st.floats(0.001, 1)})
seeds = st.integers(0, 2**64)


def steps(seed: int, vcpus: int, how: Settings, number: int = 200) -> list[Step]:
    return list(itertools.islice(plan(seed, vcpus, [0, 3, 5], interval=how["interval"], length=how["length"]), number))


@given(seeds, st.integers(2, 64), settings)
def test_no_vcpu_and_no_machine_is_starved(seed: int, vcpus: int, how: Settings) -> None:
    now, last = 0.0, 0.0
    free = [0.0] * vcpus  # when a vCPU may be stalled again
    for step in steps(seed, vcpus, how):
        assert step.pause >= last * (1 - 1e-6)  # so that at most half of the time anything is stalled
        now += step.pause
        assert step.victims
        assert len(set(step.victims)) == len(step.victims) <= max(1, vcpus // 2)
        assert step.rival not in step.victims  # and so never all of them at once
        assert {step.rival, *step.victims} <= set(range(vcpus))
        assert 0 < step.length <= how["length"] * (1 + 1e-9)
        assert step.cpu in (0, 3, 5)
        assert all(now >= free[vcpu] - 1e-6 for vcpu in step.victims)
        now += step.length
        for vcpu in step.victims:
            free[vcpu] = now + step.length * (1 - SHARE) / SHARE
        last = step.length


@given(seeds, st.integers(2, 64))
def test_nice_values_are_dealt_not_raised(seed: int, vcpus: int) -> None:
    dealt = [step.nices for step in steps(seed, vcpus, FAST) if step.nices]
    assert len({tuple(sorted(nices)) for nices in dealt}) == 1
    assert (min(dealt[0]), len(dealt[0])) == (0, vcpus)
    assert max(dealt[0]) <= 6


@given(seeds, st.integers(2, 8), settings)
def test_a_plan_is_its_seed(seed: int, vcpus: int, how: Settings) -> None:
    assert steps(seed, vcpus, how, 20) == steps(seed, vcpus, how, 20)
    assert steps(seed, vcpus, how, 20) != steps(seed + 1, vcpus, how, 20)


def test_the_plan_of_a_seed_is_the_same_in_every_release() -> None:
    first = next(plan(1, 4, [0, 1], interval=0.01, length=0.01))
    assert (first.victims, first.rival, first.cpu, first.nices) == ((1,), 3, 0, (4, 6, 0, 2))
    assert (round(first.pause, 6), round(first.length, 6)) == (0.000703, 0.000526)


def test_every_vcpu_has_its_turn_and_pauses_are_as_long_as_asked() -> None:
    made = steps(1, 4, {"interval": 0.01, "length": 0.01}, 4000)
    assert {vcpu for step in made for vcpu in step.victims} == {0, 1, 2, 3}
    assert {step.rival for step in made} == {0, 1, 2, 3}
    assert {len(step.victims) for step in made} == {1, 2}
    assert 0.01 < sum(step.pause for step in made) / len(made) < 0.013
    assert max(step.length for step in made) > 0.009
    assert min(step.length for step in made) < 0.0006
    assert 1 < sum(bool(step.nices) for step in made) < len(made) / 8


def test_a_late_host_makes_rests_longer() -> None:
    rests = Rests(2)
    assert rests.rested((0, 1), 0.0) == (0, 1)
    rests.note((1,), 2.0, 10.0)  # whatever was planned
    assert rests.pause == 2.0
    assert rests.rested((0, 1), 15.9) == (0,)
    assert rests.rested((0, 1), 16.0) == (0, 1)
    assert rests.first == 0.0


def test_a_single_vcpu_is_let_be() -> None:
    assert steps(1, 1, FAST) == []
    assert steps(1, 0, FAST) == []


# -- threads of a real process ----------------------------------------------------------------------------------------

BUSY = """
import os, threading, time
def work():
    os.write(1, b"%d\\n" % threading.get_native_id())
    while True:
        time.sleep(0.001)
for _ in range(4):
    threading.Thread(target=work).start()
"""


class Machine:
    """A process with four threads, and how they are at the moment."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        self.threads = tuple(int(process.stdout.readline()) for _ in range(4))
        self.before = self.state()

    @property
    def pid(self) -> int:
        return self.process.pid

    def state(self) -> list[tuple[int, int, set[int]]]:
        return [state(thread) for thread in self.threads]

    def jitter(self, able: Able = ABLE, seed: int = 1, threads: Sequence[int] | None = None) -> Jitter:
        return Jitter(self.pid, self.threads if threads is None else threads, able, seed, **FAST)

    def saw(self, what: Callable[[tuple[int, int, set[int]]], bool]) -> bool:
        """Whether some thread is once seen to be like that."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if any(map(what, self.state())):
                return True
        return False

    def changed(self) -> bool:
        return self.saw(lambda one: one != self.before[0])


def state(thread: int) -> tuple[int, int, set[int]]:
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread), os.sched_getaffinity(thread)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            yield Machine(process)
        finally:
            process.kill()


needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: there is nothing to pin to")


@needs_two_cpus
def test_what_was_done_is_told_and_put_back(machine: Machine) -> None:
    with machine.jitter() as jitter:
        assert machine.changed()
        assert machine.saw(lambda one: len(one[2]) == 1)
        if Means.IDLE in ABLE.means:
            assert machine.saw(lambda one: one[0] == os.SCHED_IDLE)
        if Means.NICE in ABLE.means:
            assert machine.saw(lambda one: one[1] > machine.before[0][1])
        time.sleep(0.1)
    assert machine.state() == machine.before
    report = jitter.report
    assert set(report.kinds) == ABLE.means
    assert report.steps > 0
    assert report.stalled > 0
    assert report.note == ABLE.note


@needs_two_cpus
def test_a_stall_ends(machine: Machine) -> None:
    free = (machine.before[0][0], machine.before[0][2])
    with Jitter(machine.pid, machine.threads, ABLE, 1, interval=0.02, length=0.001):
        for _ in range(3):
            assert machine.saw(lambda one: len(one[2]) == 1)
            end = time.monotonic() + WAIT
            while any((policy, cpus) != free for policy, _, cpus in machine.state()):
                assert time.monotonic() < end


@needs_two_cpus
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_end_in_the_middle_of_a_stall_puts_back_too(machine: Machine, error: type[BaseException]) -> None:
    def work() -> None:
        with Jitter(machine.pid, machine.threads, ABLE, 1, interval=0.001, length=1.0):
            assert machine.changed()
            raise error

    with pytest.raises(error):
        work()
    assert machine.state() == machine.before
    assert not [one for one in threading.enumerate() if one.name == "rig-jitter"]


def test_half_a_change_is_put_back(machine: Machine) -> None:
    threads = Threads(machine.pid, machine.threads, ABLE.means)
    threads.stall(machine.threads[:2], machine.threads[2], CPUS[0])
    threads.renice(machine.threads[3], 3)
    threads.close()
    assert machine.state() == machine.before


def test_a_release_leaves_the_nice_values(machine: Machine) -> None:
    threads = Threads(machine.pid, machine.threads, ABLE.means)
    threads.renice(machine.threads[0], 3)
    threads.stall(machine.threads[:1], machine.threads[1], CPUS[0])
    dealt = state(machine.threads[0])[1]
    threads.release()
    assert state(machine.threads[0]) == (machine.before[0][0], dealt, machine.before[0][2])
    threads.close()
    assert machine.state() == machine.before


def test_a_process_that_dies_in_the_middle_ends_it_quietly(machine: Machine) -> None:
    with machine.jitter() as jitter:
        assert machine.changed()
        machine.process.kill()
        machine.process.wait()
        end = time.monotonic() + WAIT
        while [one for one in threading.enumerate() if one.name == "rig-jitter"]:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert jitter.report.note == ABLE.note
    with machine.jitter() as late:
        pass
    assert late.report.steps == 0


def test_threads_of_others_are_never_touched(machine: Machine) -> None:
    here = threading.get_native_id()
    mine = state(here)
    with machine.jitter(threads=(here, *machine.threads[:2])) as jitter:
        assert machine.changed()
        assert state(here) == mine
    assert f"thread {here} does not belong to process {machine.pid}" in jitter.report.note
    threads = Threads(machine.pid, (here, *machine.threads), ABLE.means)
    assert threads.known == machine.threads
    with pytest.raises(LookupError):  # as if its number had passed to somebody else meanwhile
        threads.stall([here], machine.threads[0], CPUS[0])
    threads.close()
    assert state(here) == mine


def test_one_thread_alone_is_let_be(machine: Machine) -> None:
    with machine.jitter(threads=machine.threads[:1] * 4) as jitter:
        time.sleep(0.05)
        assert machine.state() == machine.before
    assert (jitter.report.steps, jitter.report.kinds) == (0, ())
    assert "fewer than two vCPU threads" in jitter.report.note


def test_a_failure_of_our_own_is_not_swallowed(machine: Machine) -> None:
    broken = Jitter(machine.pid, machine.threads, ABLE, 1, interval=0.001, length=-1.0)
    with pytest.raises(ValueError, match="math domain error"), broken:
        pass
    assert machine.state() == machine.before


# -- with less than everything ----------------------------------------------------------------------------------------


@needs_two_cpus
def test_what_may_not_be_done_is_not_done(machine: Machine) -> None:
    able = Able(means=frozenset({Means.PIN}), note="no SCHED_IDLE here")
    seen = set()
    with machine.jitter(able) as jitter:
        assert machine.saw(lambda one: len(one[2]) == 1)
        for _ in range(200):
            seen |= {(policy, nice) for policy, nice, _ in machine.state()}
    assert seen == {machine.before[0][:2]}
    assert (jitter.report.kinds, jitter.report.note) == (("pin",), "no SCHED_IDLE here")
    assert jitter.report.steps > 0
    assert machine.state() == machine.before


def test_with_nothing_at_all_nothing_is_done(machine: Machine) -> None:
    with machine.jitter(Able(means=frozenset(), note="nothing")) as jitter:
        time.sleep(0.05)
    assert (jitter.report.steps, jitter.report.kinds, jitter.report.note) == (0, (), "nothing")


def test_a_means_that_fails_is_given_up_with_a_note(machine: Machine) -> None:
    threads = Threads(machine.pid, machine.threads, {Means.PIN})
    threads.stall(machine.threads[:1], machine.threads[1], 10**4)  # no host has that CPU
    assert threads.means == set()
    assert threads.used == set()
    assert threads.notes == ["pin was given up: Invalid argument"]
    threads.close()
    assert machine.state() == machine.before


UNPRIVILEGED = """
import os, resource, signal, time
from rig.perturbation import perturb
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
able = perturb.means()
print(",".join(sorted(able.means)))
print(able.note)
assert before == (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0))
"""


def test_an_ordinary_user_is_left_with_pinning_and_told_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=True
    )
    kinds, note = done.stdout.splitlines()
    assert kinds == ("pin" if len(CPUS) > 1 else "")
    assert "no SCHED_IDLE" in note
    assert "no nice values" in note
    assert "RLIMIT_NICE is 0" in note
    assert "USER - nice 0" in note


RUN_UNPRIVILEGED = (
    UNPRIVILEGED
    + """
import sys
source, sink = os.pipe()
child = os.fork()  # no program started anew: an interpreter may be out of reach for this user
if child == 0:
    os.dup2(sink, 1)
    exec(sys.argv[1])
    time.sleep(600)
try:
    with os.fdopen(source) as file:
        threads = [int(file.readline()) for _ in range(4)]
    with perturb.Jitter(child, threads, able, 1, interval=0.001, length=0.002) as jitter:
        time.sleep(0.5)
    print([(os.sched_getscheduler(one), os.getpriority(os.PRIO_PROCESS, one)) for one in threads])
    print(all(os.sched_getaffinity(one) == before[2] for one in threads), jitter.report.steps > 0)
finally:
    os.kill(child, signal.SIGKILL)
"""
)


@needs_two_cpus
def test_an_ordinary_user_leaves_no_thread_changed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_UNPRIVILEGED, BUSY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    mine = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    assert done.stdout.splitlines()[2:] == [str([mine] * 4), "True True"]


def test_trying_changes_nobody() -> None:
    before = {thread: state(thread) for thread in (int(path.name) for path in Path("/proc/self/task").iterdir())}
    assert means() == ABLE
    with suppress(ProcessLookupError):
        assert all(state(thread) == then for thread, then in before.items())
