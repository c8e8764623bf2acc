"""Source lines for a splat: on a small tree that is really in git and really compiled, without debug information."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import fakelinux
import pytest
from madeup import BUG, kernel, run, trial

from rig.model import CaseResult, Kernel, Side, Status, TrialResult
from rig.reports.sourcelines import with_lines
from rig.store import Store
from rig.trees.source import repository

TEXT = """\
int seen(int);
int seen(int a) { return a; }
__attribute__((noinline)) static int guilty(int a)
{
\treturn *(volatile int *)(long)a;
}
int around(int a);
__attribute__((noinline)) int around(int a)
{
\treturn guilty(a) + seen(a);
}
int main(void) { return around(1); }
"""


@dataclasses.dataclass(frozen=True)
class Built:
    store: Store
    commit: str
    kernel: Kernel
    splat: str


@pytest.fixture
def built(store: Store, tmp_path: Path) -> Built:
    """A base whose kernel has one file, as kbuild would leave it, and a splat in it."""
    tree = tmp_path / "linux"
    (tree / "mm").mkdir(parents=True)
    (tree / "include").mkdir()
    (tree / "include" / "a.h").touch()
    (tree / "mm" / "a.c").write_text(TEXT)
    fakelinux.git(tree, "init", "--quiet", "--initial-branch=main")
    fakelinux.git(tree, "add", "--all")
    fakelinux.git(tree, "commit", "--quiet", "--message=base")
    git = repository(store)
    git("fetch", "--quiet", str(tree), "main:refs/heads/main")
    commit = git.commit_of("refs/heads/main")
    assert commit is not None
    work = store.root / "work" / f"build-{commit[:12]}"
    (work / "source").mkdir(parents=True)
    objects = work / "obj-debug" / "mm"
    objects.mkdir(parents=True)
    command = f"gcc -O2 -c -o mm/a.o {work}/source/mm/a.c"
    (objects / ".a.o.cmd").write_text(f"savedcmd_mm/a.o := {command}\n")
    subprocess.run(["gcc", "-O2", "-c", "-o", objects / "a.o", tree / "mm" / "a.c"], check=True)
    vmlinux = tmp_path / "vmlinux"
    subprocess.run(["gcc", "-o", vmlinux, objects / "a.o"], check=True)
    listed = subprocess.run(["nm", "-S", vmlinux], check=True, capture_output=True, text=True).stdout
    size = next(int(line.split()[1], 16) for line in listed.splitlines() if line.endswith(" guilty"))
    made = dataclasses.replace(kernel(), vmlinux=vmlinux, commit=commit)
    return Built(store, commit, made, f"BUG: bad\nRIP: 0010:guilty+0x0/{size:#x}\n ? around+0x1/0x999")


def crashed(text: str, index: int = 0) -> TrialResult:
    bug = dataclasses.replace(BUG, text=text)
    case = CaseResult(name="punch", status=Status.CRASH, findings=(bug,))
    return trial(Side.PATCHED, Status.CRASH, bug, cases=(case,), index=index)


def told(built: Built, *trials: TrialResult) -> tuple[tuple[TrialResult, ...], list[str]]:
    said: list[str] = []
    kernels = {("debug", Side.PATCHED): built.kernel}
    return with_lines(trials, run(*trials).verdict, kernels, built.store, built.commit, said.append), said


def test_the_example_of_a_finding_gets_lines_wherever_it_stands(built: Built) -> None:
    (first, second), said = told(built, crashed(built.splat), crashed(built.splat, index=1))
    lines = first.findings[0].text.splitlines()
    assert lines[1].endswith(" mm/a.c:5") or lines[1].endswith(" mm/a.c:4")
    assert lines[2] == " ? around+0x1/0x999"  # of another build
    assert first.cases[0].findings[0].text == first.findings[0].text
    assert second.findings[0].text == built.splat  # one is enough
    assert ["compiling mm/a.c again" in word for word in said] == [True]
    assert told(built, crashed(built.splat))[1] == []  # it is in the store


@pytest.mark.parametrize("missing", [".a.o.cmd", "a.o"])
def test_what_cannot_be_looked_up_stays(built: Built, missing: str) -> None:
    (built.store.root / "work" / f"build-{built.commit[:12]}" / "obj-debug" / "mm" / missing).unlink()
    (after,), _ = told(built, crashed(built.splat))
    assert after.findings[0].text == built.splat


def test_a_file_that_does_not_compile_costs_the_lines_only(built: Built) -> None:
    place = built.store.root / "work" / f"build-{built.commit[:12]}" / "obj-debug" / "mm" / ".a.o.cmd"
    place.write_text(place.read_text().replace("-O2", "-O2 --no-such-flag"))
    (after,), said = told(built, crashed(built.splat))
    assert after.findings[0].text == built.splat
    assert len(said) == 1


def test_a_run_without_splats_compiles_nothing(built: Built) -> None:
    assert told(built, trial())[1] == []
    assert told(built, crashed("no frames"))[1] == []
