# SPDX-License-Identifier: GPL-2.0-only
"""The workloads that move, write back and poison memory, run for a second on the kernel of this host.

What a host cannot or must not do (several NUMA nodes, compaction, poisoned pages) is a SKIP of the workload itself; the
oracles are shown to work by making the workloads lie to them (--inject).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostworkload import BROKEN, FAIL, JUDGEMENTS, PASS, SKIP, assert_consistent, build, run, run_cases

WORKLOADS = ("migrate-race", "remap-race", "writeback-race", "poison-race")

# What makes a workload run although the host cannot do what it is for: nothing is migrated or poisoned then.
IDLE = ("--inject", "idle")


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("moves"), *WORKLOADS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_stock_kernel_is_clean(binaries: dict[str, Path], tmp_path: Path, name: str) -> None:
    got = run_cases(binaries[name], tmp_path, "--seed", "1")
    assert_consistent(got)
    assert got.findings == ()
    assert got.code in (PASS, SKIP)
    for _, case, why in got.results:
        assert why is None or why.startswith(("inconclusive: ", "unsupported: ")), case
    assert list(tmp_path.iterdir()) == []


def test_pages_are_poisoned_in_a_guest_only(binaries: dict[str, Path], tmp_path: Path) -> None:
    got = run_cases(binaries["poison-race"], tmp_path)
    assert got.code == SKIP
    assert {why for _, _, why in got.results} == {"unsupported: only a guest of the rig may lose pages"}
    # nor when it lies: these two say how often madvise() was called
    lying = run_cases(binaries["poison-race"], tmp_path, "--inject", "data")
    assert "poisoned=0" in lying.diagnostics("counter")
    assert not any(re.match(r"(poisoned|refused)=[1-9]", line) for line in lying.diagnostics("counter"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_decides_every_parameter(binaries: dict[str, Path], tmp_path: Path, name: str) -> None:
    def params(seed: int) -> tuple[str, ...]:
        return run_cases(binaries[name], tmp_path, "--seed", str(seed), *IDLE).diagnostics("param")

    first = params(7)
    assert first
    assert params(7) == first
    assert params(8) != first


@pytest.mark.parametrize(
    ("name", "case", "args"),
    [
        ("migrate-race", "read-private", {"pages": 40, "movers": 2}),
        ("remap-race", "move-private", {"pages": 40, "hot": 3}),
        ("writeback-race", "append-small", {"pages": 40, "writers": 1}),
        ("poison-race", "file-private", {"pages": 40, "readers": 2}),
    ],
)
def test_options_override_the_seed(
    binaries: dict[str, Path], tmp_path: Path, name: str, case: str, args: dict[str, int]
) -> None:
    options = [word for key, value in args.items() for word in (f"--{key}", str(value))]
    params = run_cases(binaries[name], tmp_path, "--cases", case, *options, *IDLE).diagnostics("param")
    assert params
    for line in params:
        assert {f"{key}:{value}" for key, value in args.items()} <= set(line.partition("=")[2].split(","))


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("args", [("--pages", "1"), ("--cases", "nothing*"), ("--episode", "1")], ids=" ".join)
def test_bad_options_bail_out(binaries: dict[str, Path], tmp_path: Path, name: str, args: tuple[str, ...]) -> None:
    got = run(binaries[name], "--dir", tmp_path, *args)
    assert got.code == BROKEN
    assert got.lines[-1].startswith("Bail out! ")
    assert got.results == ()


@pytest.mark.parametrize("name", WORKLOADS)
def test_help_teaches_and_the_judge_is_the_one_of_all(binaries: dict[str, Path], name: str) -> None:
    text = "\n".join(run(binaries[name], "--help").lines)
    for word in ("--dir", "--seed", "--budget", "--cases", "cases:", "Exit:"):
        assert word in text
    got = run(binaries[name], "--self-test")
    assert_consistent(got)
    assert dict(line.split("=") for line in got.diagnostics("judge")) == JUDGEMENTS


# --inject makes the workload lie about one thing: the oracle for that thing must speak.
LIES = [
    ("migrate-race", "corrupt", "read-private", "written data lost after migration in read-private"),
    ("migrate-race", "stale", "coherent-private", "stale data after migration in coherent-private"),
    ("migrate-race", "lost", "write-shared", "written data lost after migration in write-shared"),
    ("migrate-race", "lost", "cow-fork", "written data lost after migration in cow-fork"),
    ("migrate-race", "lost", "dirty-zap", "written data lost after migration in dirty-zap"),
    ("remap-race", "stale", "move-private", "stale data in a private mapping that moves"),
    ("remap-race", "corrupt", "move-shared", "corrupt data in a shared mapping that moves"),
    ("remap-race", "corrupt", "exec", "program text is corrupt after exec"),
    ("writeback-race", "zero", "append-small", "zeroes instead of data in append-small"),
    ("writeback-race", "disk", "append-large", "written data lost in append-large"),
    ("writeback-race", "lost", "shared-stores", "written data lost in shared-stores"),
    ("writeback-race", "lost", "mixed-writes", "written data lost in mixed-writes"),
    ("poison-race", "data", "file-private", "data of a poisoned page in file-private"),
    ("poison-race", "data", "anon", "data of a poisoned page in anon"),
    ("poison-race", "sigbus", "file-shared", "SIGBUS on a page that was not poisoned in file-shared"),
    ("poison-race", "sigbus", "soft-offline", "SIGBUS on a page that was not poisoned in soft-offline"),
]


@pytest.mark.parametrize(("name", "lie", "case", "title"), LIES, ids=lambda value: str(value).replace(" ", "-"))
def test_every_oracle_can_fail(
    binaries: dict[str, Path], tmp_path: Path, name: str, lie: str, case: str, title: str
) -> None:
    # wide enough a budget that a busy host gets to the point; a finding ends the case at once
    got = run(binaries[name], "--dir", tmp_path, "--budget", "20", "--cases", case, "--inject", lie)
    assert_consistent(got)
    if got.code == SKIP and any((why or "").startswith("unsupported: ") for _, _, why in got.results):
        pytest.skip(f"{tmp_path}: {got.results[0][2]}")
    assert got.code == FAIL
    assert title in got.findings
    assert len(set(got.findings)) == len(got.findings)
    assert any(line.startswith("# detail: ") for line in got.lines)
    assert not any(re.search(r"\d", finding) for finding in got.findings), "titles are stable across runs"


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("migrate-race", "coherent-*"),
        ("migrate-race", "dirty-zap"),
        ("remap-race", "move-*"),
        ("poison-race", "anon"),
    ],
)
def test_a_race_that_was_not_run_is_inconclusive(
    binaries: dict[str, Path], tmp_path: Path, name: str, case: str
) -> None:
    # a mover, remover or poisoner that does nothing: nothing can be found, and that must not look like a pass
    got = run_cases(binaries[name], tmp_path, "--cases", case, *IDLE)
    assert_consistent(got)
    assert got.code == SKIP
    assert all((why or "").startswith(("inconclusive: counter ", "unsupported: ")) for _, _, why in got.results)
