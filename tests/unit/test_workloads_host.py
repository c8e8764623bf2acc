# SPDX-License-Identifier: GPL-2.0-only
"""The workloads, compiled as the guest gets them and run for a second on the kernel of this host.

A host's kernel is stock, so here they must stay clean; that they would not stay clean on a bad one is shown by making
them lie to their own oracle (--inject) and by feeding its judge what it must refuse (--self-test).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostworkload import BROKEN, FAIL, JUDGEMENTS, PASS, SKIP, assert_consistent, build, run, run_cases

WORKLOADS = ("truncate-race", "fault-stress", "static-faults", "reclaim-race", "huge-race", "hugetlb-race")


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("workloads"), *WORKLOADS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_stock_kernel_is_clean(binaries: dict[str, Path], tmp_path: Path, name: str) -> None:
    got = run_cases(binaries[name], tmp_path, "--seed", "1")
    assert_consistent(got)
    assert got.findings == ()
    assert got.code in (PASS, SKIP)
    for _, case, why in got.results:
        assert why is None or why.startswith(("inconclusive: ", "unsupported: ")), case
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_decides_every_parameter(binaries: dict[str, Path], tmp_path: Path, name: str) -> None:
    def params(seed: int) -> tuple[str, ...]:
        return run_cases(binaries[name], tmp_path, "--seed", str(seed)).diagnostics("param")

    first = params(7)
    assert first
    assert params(7) == first
    assert params(8) != first


def test_a_case_alone_draws_what_it_draws_among_all(binaries: dict[str, Path], tmp_path: Path) -> None:
    program = binaries["truncate-race"]
    alone = run_cases(program, tmp_path, "--seed", "3", "--cases", "extend-shared")
    among = run_cases(program, tmp_path, "--seed", "3")
    assert [case for _, case, _ in alone.results] == ["extend-shared"]
    # episodes are as many as the time that the case has; the first is always there
    assert alone.diagnostics("param")[0] in among.diagnostics("param")


def test_options_override_the_seed(binaries: dict[str, Path], tmp_path: Path) -> None:
    got = run_cases(binaries["truncate-race"], tmp_path, "--cases", "punch-*", "--pages=40", "--mappers", "2")
    params = got.diagnostics("param")
    assert params
    assert all("pages:40," in line and "mappers:2," in line for line in params)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(
    "args",
    [
        ("--no-such-option", "1"),
        ("stray",),
        ("--seed", "x"),
        ("--seed", "-1"),
        ("--budget", "0"),
        ("--budget", "nan"),
        ("--budget",),
        ("--pages", "1"),
        ("--pages", "99999999999999999999"),
        ("--cases", "nothing*"),
        ("--dir", "/no/such/folder"),
    ],
    ids=" ".join,
)
def test_bad_options_bail_out(binaries: dict[str, Path], tmp_path: Path, name: str, args: tuple[str, ...]) -> None:
    got = run(binaries[name], "--dir", tmp_path, *args)
    assert got.code == BROKEN
    assert got.lines[-1].startswith("Bail out! ")
    assert got.results == ()


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_missing_folder_is_asked_for(binaries: dict[str, Path], name: str) -> None:
    got = run(binaries[name])
    assert (got.code, got.lines) == (BROKEN, ("Bail out! --dir is missing (see --help)",))


@pytest.mark.parametrize("name", WORKLOADS)
def test_help_teaches(binaries: dict[str, Path], name: str) -> None:
    got = run(binaries[name], "--help")
    text = "\n".join(got.lines)
    assert got.code == PASS
    for word in ("--dir", "--seed", "--budget", "--cases", "cases:", "Exit:"):
        assert word in text


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_judge_accuses_the_guilty_and_nobody_else(binaries: dict[str, Path], name: str) -> None:
    got = run(binaries[name], "--self-test")
    assert_consistent(got)
    assert got.code == PASS
    assert dict(line.split("=") for line in got.diagnostics("judge")) == JUDGEMENTS


# --inject makes the workload lie about one thing: the oracle for that thing, and it alone, must speak.
LIES = [
    ("truncate-race", "stale", "punch-private", "stale data after hole punch in a private mapping"),
    ("truncate-race", "zero", "punch-shared", "zeroes instead of data after hole punch in a shared mapping"),
    ("truncate-race", "zero", "truncate-private", "zeroes instead of data after truncate in a private mapping"),
    (
        "truncate-race",
        "eof",
        "truncate-private",
        "page mapped past the end of the file after truncate in a private mapping",
    ),
    ("truncate-race", "sigbus", "extend-private", "SIGBUS below the end of the file after extend in a private mapping"),
    # these want a file system that can (ext4, xfs) below the folder for temporary files
    ("truncate-race", "stale", "zero-private", "stale data after zero range in a private mapping"),
    ("truncate-race", "stale", "collapse-private", "stale data after collapse range in a private mapping"),
    ("truncate-race", "zero", "insert-private", "zeroes instead of data after insert range in a private mapping"),
    ("fault-stress", "lost", "anon-private", "written data lost in anon-private"),
    ("fault-stress", "lost", "file-shared-write", "written data lost in file-shared-write"),
    ("fault-stress", "lost", "fork-file", "written data lost in fork-file"),
    ("static-faults", "garbage", "never-written", "data in a fallocated page that was never written"),
    ("static-faults", "garbage", "never-written", "read() of a fallocated page that was never written"),
    ("static-faults", "eof", "past-eof", "no SIGBUS past the end of the file"),
    ("static-faults", "eof", "past-eof", "page mapped past the end of the file after truncate and read"),
    ("static-faults", "eof", "past-eof", "data not zero past the end of the file in its last page"),
    ("static-faults", "rss", "rss", "resident pages not counted as often as they are mapped"),
    ("static-faults", "lost", "private-copies", "written data lost in private-copies"),
    ("static-faults", "index", "sparse", "data of another page in sparse"),
    ("static-faults", "poison", "poison", "poisoned page mapped along with its neighbour"),
    ("static-faults", "poison", "poison", "no SIGBUS on a poisoned page"),
    ("static-faults", "poison", "poison", "read() of a poisoned page succeeds"),
    ("reclaim-race", "tail", "eof-tail", "data not zero past the end of a truncated page"),
    ("reclaim-race", "stale", "punch", "stale data left in the file after hole punch under reclaim"),
    ("reclaim-race", "zero", "rewrite", "zeroes instead of data after rewriting under reclaim"),
    ("reclaim-race", "zero", "truncate", "zeroes instead of data after truncate under reclaim"),
    ("reclaim-race", "lost", "lazyfree", "zeroes instead of data after a direct read under reclaim"),
    ("reclaim-race", "lost", "anon", "written data lost after swapping under reclaim"),
]


@pytest.mark.parametrize(("name", "lie", "case", "title"), LIES, ids=lambda value: str(value).replace(" ", "-"))
def test_every_oracle_can_fail(
    binaries: dict[str, Path], tmp_path: Path, name: str, lie: str, case: str, title: str
) -> None:
    # wide enough a budget that a busy host gets to the point; a finding ends the case at once
    got = run(binaries[name], "--dir", tmp_path, "--budget", "20", "--cases", case, "--inject", lie)
    assert_consistent(got)
    assert got.code == FAIL
    assert title in got.findings
    assert len(set(got.findings)) == len(got.findings)
    assert any(line.startswith("# detail: ") for line in got.lines)
    assert not any(re.search(r"\d", finding) for finding in got.findings), "titles are stable across runs"


@pytest.mark.parametrize(("name", "case"), [("truncate-race", "punch-*"), ("reclaim-race", "punch")])
def test_a_race_that_was_not_run_is_inconclusive(
    binaries: dict[str, Path], tmp_path: Path, name: str, case: str
) -> None:
    # a mutator that removes nothing: nothing can be found, and that must not look like a pass
    got = run_cases(binaries[name], tmp_path, "--cases", case, "--inject", "idle")
    assert_consistent(got)
    assert got.code == SKIP
    for _, _, why in got.results:
        assert re.fullmatch(r"inconclusive: counter rounds=0 below \d+", why or "")


def test_what_only_a_machine_of_the_rig_can_spare_is_left_alone(binaries: dict[str, Path], tmp_path: Path) -> None:
    # no poisoned memory, no swap on zram, no dropped caches on somebody's host
    got = run_cases(binaries["static-faults"], tmp_path, "--cases", "poison")
    assert [why for _, _, why in got.results] == [
        "unsupported: poisons memory, which only a machine of the rig can spare"
    ]
