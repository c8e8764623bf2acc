"""Runs a workload on this host and reads its KTAP: what the tests of the workloads share."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "guest-workloads"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
PASS, FAIL, SKIP, BROKEN = 0, 1, 4, 99
RESULT = re.compile(r"(not ok|ok) (\d+) (\S+)(?: # SKIP (.+))?")
DEADLINE = 120.0  # seconds; a run takes two, on a host that is not ours alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a workload: its exit code, its lines, and what its result lines say."""

    code: int
    lines: tuple[str, ...]

    @property
    def results(self) -> tuple[tuple[str, str, str | None], ...]:
        """(ok or not ok, case, why it was skipped or None), in the order of the output."""
        matches = (RESULT.fullmatch(line) for line in self.lines)
        return tuple((m[1], m[3], m[4]) for m in matches if m)

    @property
    def skipped(self) -> dict[str, str]:
        """Why a case says nothing, by case."""
        return {case: why for _, case, why in self.results if why}

    def diagnostics(self, kind: str) -> tuple[str, ...]:
        """What follows `# kind` on the lines that start so."""
        return tuple(line.split(" ", 2)[2] for line in self.lines if line.startswith(f"# {kind} "))

    @property
    def findings(self) -> tuple[str, ...]:
        return self.diagnostics("finding:")


def build(folder: Path, *names: str) -> dict[str, Path]:
    """Return the programs `names` of guest-workloads/, compiled into `folder` with the flags of the guest."""
    for name in names:
        subprocess.run(["gcc", *FLAGS, "-o", folder / name, SOURCES / f"{name}.c"], check=True, timeout=DEADLINE)
    return {name: folder / name for name in names}


def run(program: Path, *args: str | Path, deadline: float = DEADLINE) -> Run:
    """Return how the program ended with `args`, and what it printed; within `deadline` seconds."""
    done = subprocess.run([program, *args], capture_output=True, text=True, timeout=deadline, check=False)
    assert done.stderr == ""
    return Run(code=done.returncode, lines=tuple(done.stdout.splitlines()))


def run_cases(program: Path, folder: Path, *args: str) -> Run:
    return run(program, "--dir", folder, "--budget", "1", *args)


def assert_consistent(got: Run) -> None:
    """The plan comes first and is kept, numbers ascend, and the exit code says what the lines say."""
    assert got.lines[0] == "KTAP version 1"
    plan = re.fullmatch(r"1\.\.(\d+)", got.lines[1])
    assert plan
    numbers = [int(m[2]) for line in got.lines if (m := RESULT.fullmatch(line))]
    assert numbers == list(range(1, int(plan[1]) + 1))
    others = [line for line in got.lines[2:] if not RESULT.fullmatch(line) and not line.startswith("# ")]
    assert others == []
    if any(word == "not ok" for word, _, _ in got.results):
        assert got.code == FAIL
    elif all(why for _, _, why in got.results):
        assert got.code == SKIP
    else:
        assert got.code == PASS


# What the judge of the stamps must say: page 7, head; generations up to 5 are dead, up to 9 have been written.
JUDGEMENTS = {
    "live": "live",
    "newer": "live",
    "zero": "zero",
    "whole-stale": "stale",
    "very-stale": "stale",
    "torn-generation": "torn",
    "torn-half-written": "torn",
    "torn-from-zero": "torn",
    "poison": "torn",
    "wrong-index": "wrong-page",
    "wrong-end": "wrong-page",
    "future": "future",
}
