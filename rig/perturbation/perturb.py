"""Jitter of the vCPU threads while a workload runs, so that a race need not wait for the host to be unkind.

A vCPU that stands still for milliseconds in the middle of a window holds it open for all the others. So a thread of the
rig picks vCPUs at random and, for a random time, puts their threads under SCHED_IDLE on one CPU that they share with
another vCPU; now and then it deals the nice values out anew. Random priorities that change at random points are the
idea of PCT (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
SKI (Fonseca et al., OSDI 2014) has it for kernels, in a virtual machine monitor of its own; here QEMU stays as it is.

`plan` is what is done, worked out from the seed alone; `Jitter` does it to threads, and puts everything back.
Which of the means are at hand depends on the user, see `means`.
"""

from __future__ import annotations

import errno
import math
import os
import random
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from rig.clock import Stopwatch, monotonic
from rig.model import Perturbation
from rig.perturbation.beside import Beside

#: The part of the time for which one vCPU may be stalled: after a stall it is left alone for three times as long.
#: With the vCPUs taking turns, at most half of the time passes with any of them stalled: between two stalls there is a
#: pause as long as the first. A healthy guest notices neither; its watchdogs wait for tens of seconds.
SHARE = 0.25

SHORTEST = 0.0005  # seconds of a stall; below that the rig's own wake-ups are longer
LONGEST_PAUSE = 5.0  # times the mean
AGAIN = 0.25  # chance that one more vCPU is stalled with those already picked
DEAL = 1 / 16  # chance that a step deals the nice values anew
NICE_SPAN = 6  # between the first and the last vCPU: a share of the CPU of 3.8 to 1 (kernel/sched/core.c: 1.25 each)
NICE_MAX = 19


class Means(StrEnum):
    """What can be done to a thread and taken back."""

    IDLE = "idle"  # SCHED_IDLE
    PIN = "pin"  # to one CPU
    NICE = "nice"  # nice values


@dataclass(frozen=True, slots=True, kw_only=True)
class Able:
    """The means that this host and user have."""

    means: frozenset[Means]
    note: str = ""  # what is missing, and why


#: Nobody asked.
NOTHING = Able(means=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stall. vCPUs are counted from 0, in any order of the threads that stays the same."""

    pause: float  # seconds since the end of the last one
    victims: tuple[int, ...]  # never all vCPUs
    rival: int  # a vCPU that is pinned beside them: on a CPU of its own even an idle thread runs on
    cpu: int  # of the host
    length: float  # seconds
    nices: tuple[int, ...] = ()  # added to the nice value of each vCPU from now on; (): as they are


class Rests:
    """Which vCPUs may be stalled again, and when: the same rules by the clock of the plan and by that of the host."""

    def __init__(self, vcpus: int) -> None:
        self.pause = 0.0  # seconds for which nothing is stalled after what was stalled last
        self._until = [0.0] * vcpus

    @property
    def first(self) -> float:
        """When at least one vCPU is rested."""
        return min(self._until)

    def rested(self, vcpus: Iterable[int], now: float) -> tuple[int, ...]:
        """Return those of the `vcpus` that may be stalled."""
        return tuple(vcpu for vcpu in vcpus if self._until[vcpu] <= now)

    def note(self, vcpus: Iterable[int], seconds: float, now: float) -> None:
        """Take into account that `vcpus` were stalled for `seconds`, up to `now`."""
        self.pause = seconds
        for vcpu in vcpus:
            self._until[vcpu] = now + seconds * (1 / SHARE - 1)


# -- the plan ---------------------------------------------------------------------------------------------------------


def plan(seed: int, vcpus: int, cpus: Sequence[int], *, interval: float, length: float) -> Iterator[Step]:
    """Yield steps without end, the same for the same arguments; none for a single vCPU, which nobody waits for.

    `interval` is the mean of the pauses and `length` the longest stall, both in seconds; short stalls are as likely as
    long ones on a scale of logarithms, as nobody knows how long a window is.
    """
    if vcpus < 2:
        return
    draw = random.Random(f"vcpu jitter {seed}")  # noqa: S311  # to be repeated, not to be secret
    rests, now = Rests(vcpus), 0.0
    offsets = [NICE_SPAN * number // (vcpus - 1) for number in range(vcpus)]
    nices = tuple(draw.sample(offsets, vcpus))
    while True:
        stall = math.exp(draw.uniform(math.log(min(SHORTEST, length)), math.log(length)))
        pause = max(rests.pause, min(draw.expovariate(1 / interval), LONGEST_PAUSE * interval))
        before, now = now, max(now + pause, rests.first)
        ready = rests.rested(range(vcpus), now)
        count = 1
        while count < min(vcpus // 2, len(ready)) and draw.random() < AGAIN:
            count += 1
        victims = tuple(sorted(draw.sample(ready, count)))
        rival = draw.choice([vcpu for vcpu in range(vcpus) if vcpu not in victims])
        yield Step(pause=now - before, victims=victims, rival=rival, cpu=draw.choice(cpus), length=stall, nices=nices)
        now += stall
        rests.note(victims, stall, now)
        nices = tuple(draw.sample(offsets, vcpus)) if draw.random() < DEAL else ()


# -- what the user may do ---------------------------------------------------------------------------------------------


def means() -> Able:
    """Find out by trying, on a thread of our own, what can be done and taken back.

    Leaving SCHED_IDLE and lowering a nice value take the same right (sched(7), setpriority(2)): CAP_SYS_NICE, or an
    RLIMIT_NICE of at least 20 minus the nice value, which is 0 for an ordinary user. Entering needs none, so that a
    thread which was put there without asking would stay there.
    """
    found: set[Means] = set()
    lacks: list[str] = []

    def attempt() -> None:
        here = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, here)
        why = (
            f"an ordinary user could not take it back: RLIMIT_NICE is {resource.getrlimit(resource.RLIMIT_NICE)[0]}; "
            f"a line `USER - nice {min(nice, 0)}` in /etc/security/limits.conf allows it"
        )
        if _works(_pin_and_back, here):
            found.add(Means.PIN)
        else:
            lacks.append("no pinning (the rig may use one CPU only, or may not set an affinity)")
        if not _works(_nice_and_back, here, nice):
            lacks.append(f"no SCHED_IDLE and no nice values ({why})")
            return
        if nice < NICE_MAX:
            found.add(Means.NICE)
        else:
            lacks.append(f"no nice values (the rig runs at nice {nice} itself)")
        if _works(_idle_and_back, here):
            found.add(Means.IDLE)
        else:
            lacks.append(f"no SCHED_IDLE ({why})")

    thread = threading.Thread(target=attempt, name="rig-means")
    thread.start()
    thread.join()
    return Able(means=frozenset(found), note="; ".join(lacks))


def _works(act: Callable[..., None], *args: int) -> bool:
    try:
        act(*args)
    except OSError:
        return False
    return True


def _pin_and_back(thread: int) -> None:
    cpus = os.sched_getaffinity(thread)
    if len(cpus) < 2:
        raise OSError(errno.EINVAL, "one CPU is all there is")
    os.sched_setaffinity(thread, {min(cpus)})
    os.sched_setaffinity(thread, cpus)


def _nice_and_back(thread: int, nice: int) -> None:
    _renice(thread, min(nice + 1, NICE_MAX))
    _renice(thread, nice)


def _idle_and_back(thread: int) -> None:
    policy, param = os.sched_getscheduler(thread), os.sched_getparam(thread)
    if policy not in (os.SCHED_OTHER, os.SCHED_BATCH):
        raise OSError(errno.EINVAL, "under another policy already")
    _idle(thread)
    os.sched_setscheduler(thread, policy, param)


def _renice(thread: int, nice: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, nice)  # of the thread alone, on Linux


def _idle(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _pin(thread: int, cpu: int) -> None:
    os.sched_setaffinity(thread, {cpu})


# -- what is done -----------------------------------------------------------------------------------------------------


class _GoneError(LookupError):
    """A thread is not there any more: the machine ended."""


@dataclass(frozen=True, slots=True)
class _Before:
    """How a thread was found."""

    policy: int
    param: os.sched_param
    nice: int
    cpus: frozenset[int]


class Threads:
    """Threads of one process, and how to put back what was changed on them. Close it; that puts everything back.

    Every thread is looked up below the process before it is touched: its number came from QEMU, and may be anybody's.
    """

    def __init__(self, pid: int, threads: Iterable[int], wanted: Iterable[Means]) -> None:
        """Take note of how the threads are; those that do not belong to `pid` are left out."""
        self.means = set(wanted)
        self.used: set[Means] = set()
        self.notes: list[str] = []
        self._tasks = -1
        self._before: dict[int, _Before] = {}
        self._changed: set[tuple[Means, int]] = set()
        with suppress(OSError):
            # Open, so that it stays this process, whoever gets its number next.
            self._tasks = os.open(f"/proc/{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for thread in dict.fromkeys(threads):
                if not self._ours(thread):
                    self.notes.append(f"thread {thread} does not belong to process {pid} and was left alone")
                    continue
                with suppress(OSError):
                    self._before[thread] = _Before(
                        os.sched_getscheduler(thread),
                        os.sched_getparam(thread),
                        os.getpriority(os.PRIO_PROCESS, thread),
                        frozenset(os.sched_getaffinity(thread)),
                    )

    @property
    def known(self) -> tuple[int, ...]:
        """The threads that can be worked on, in the order in which they were given."""
        return tuple(self._before)

    def stall(self, victims: Sequence[int], rival: int, cpu: int) -> None:
        """Put the `victims` under SCHED_IDLE, on one CPU with the `rival`."""
        for thread in (*victims, rival):
            self._do(Means.PIN, thread, partial(_pin, thread, cpu))
        for thread in victims:
            self._do(Means.IDLE, thread, partial(_idle, thread))

    def release(self) -> None:
        """Take all stalls back."""
        for means, thread in sorted(self._changed):
            if means is not Means.NICE:
                self._undo(means, thread)

    def renice(self, thread: int, more: int) -> None:
        """Set the nice value to `more` than it was."""
        nice = min(self._before[thread].nice + more, NICE_MAX)
        self._do(Means.NICE, thread, partial(_renice, thread, nice))

    def close(self) -> None:
        """Put everything back, as far as the threads are still there."""
        for means, thread in sorted(self._changed):
            self._undo(means, thread)
        if self._tasks >= 0:
            os.close(self._tasks)
            self._tasks = -1

    def _ours(self, thread: int) -> bool:
        try:
            os.stat(str(thread), dir_fd=self._tasks)
        except OSError:
            return False
        return True

    def _do(self, means: Means, thread: int, act: Callable[[], None]) -> None:
        """Change a thread; a means that fails is not tried again, and a note says so."""
        if means not in self.means:
            return
        if not self._ours(thread):
            raise _GoneError
        self._changed.add((means, thread))  # first, so that it is put back whatever comes between
        try:
            act()
            self.used.add(means)
        except ProcessLookupError:
            raise _GoneError from None
        except OSError as error:
            self._changed.discard((means, thread))
            self.means.discard(means)
            self.notes.append(f"{means} was given up: {error.strerror}")

    def _undo(self, means: Means, thread: int) -> None:
        before = self._before[thread]
        self._changed.discard((means, thread))
        if not self._ours(thread):
            return
        try:
            if means is Means.IDLE:
                os.sched_setscheduler(thread, before.policy, before.param)
            elif means is Means.PIN:
                os.sched_setaffinity(thread, before.cpus)
            else:
                _renice(thread, before.nice)
        except ProcessLookupError:
            pass  # it ended meanwhile
        except OSError as error:
            self.means.discard(means)
            self.notes.append(f"{means} could not be taken back: {error.strerror}")


class Jitter(Beside):
    """Runs a plan on the vCPU threads of a process for as long as the context lasts; `report` says what was done."""

    name = "rig-jitter"

    def __init__(
        self, pid: int, vcpus: Sequence[int], able: Able, seed: int, *, interval: float, length: float
    ) -> None:
        """Nothing is touched before the context is entered; `seed`, `interval` and `length` as in plan()."""
        super().__init__()
        self._pid = pid
        self._vcpus = vcpus
        self._able = able
        self._plan = (seed, interval, length)
        self._notes = [able.note] if able.note else []
        self._used: set[Means] = set()
        self._steps = 0
        self._stalled = 0.0

    @property
    def report(self) -> Perturbation:
        """What was done, once the context is left."""
        return Perturbation(
            kinds=tuple(sorted(map(str, self._used))),
            steps=self._steps,
            stalled=round(self._stalled, 3),
            note="; ".join(self._notes),
        )

    def work(self) -> None:
        """Stall threads by the plan until it is over."""
        threads = Threads(self._pid, self._vcpus, self._able.means)
        try:
            self._run(threads)
        except _GoneError:
            pass
        finally:
            threads.close()
            self._used = threads.used
            self._notes += threads.notes

    def _run(self, threads: Threads) -> None:
        """Carry the plan out, late rather than hard: what counts for the shares is the time that has really passed."""
        if not threads.means & {Means.IDLE, Means.PIN}:
            return
        known = threads.known
        if len(known) < 2:
            self._notes.append("nothing to stall: fewer than two vCPU threads")
            return
        seed, interval, length = self._plan
        rests = Rests(len(known))
        for step in plan(seed, len(known), sorted(os.sched_getaffinity(0)), interval=interval, length=length):
            if self._stop.wait(max(step.pause, rests.pause)):
                return
            for vcpu, more in enumerate(step.nices):
                threads.renice(known[vcpu], more)
            victims = rests.rested(step.victims, monotonic())
            if not victims:
                continue
            watch = Stopwatch()
            try:
                threads.stall([known[vcpu] for vcpu in victims], known[step.rival], step.cpu)
                self._stop.wait(step.length)
            finally:
                threads.release()
                seconds = watch.elapsed
                rests.note(victims, seconds, monotonic())
                self._steps += 1
                self._stalled += seconds * len(victims)
