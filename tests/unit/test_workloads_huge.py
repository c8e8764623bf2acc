# SPDX-License-Identifier: GPL-2.0-only
"""huge-race and hugetlb-race on the kernel of this host, which is stock: clean, and not clean when made to lie.

What a host refuses (mounts, a pool of huge pages, userfaultfd) a workload skips as unsupported; then there is nothing
to show here, and the guests of the controls show it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostworkload import FAIL, PASS, SKIP, Run, assert_consistent, build, run

WORKLOADS = ("huge-race", "hugetlb-race")
DEADLINE = 240.0  # seconds; workloads that turn the same knobs wait for each other
KNOBS = (
    "/proc/sys/vm/nr_hugepages",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan",
    "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled",
)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("huge-workloads"), *WORKLOADS)


def run_in(folder: Path, program: Path, *args: str) -> Run:
    got = run(program, "--dir", folder, *args, deadline=DEADLINE)
    assert_consistent(got)
    return got


def knobs() -> dict[str, str]:
    return {path: Path(path).read_text() for path in KNOBS if Path(path).exists()}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_stock_kernel_is_clean_and_gets_its_knobs_back(binaries: dict[str, Path], tmp_path: Path, name: str) -> None:
    before = knobs()
    got = run_in(tmp_path, binaries[name], "--seed", "3", "--budget", "4")
    assert got.findings == ()
    assert got.code in (PASS, SKIP)
    assert all(why.startswith(("inconclusive: ", "unsupported: ")) for why in got.skipped.values())
    assert list(tmp_path.iterdir()) == []
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts
    assert knobs() == before


def test_a_file_smaller_than_a_huge_page_is_no_reason_to_die(binaries: dict[str, Path], tmp_path: Path) -> None:
    got = run_in(tmp_path, binaries["huge-race"], "--budget", "2", "--pages", "64", "--cases", "*-punch")
    assert got.findings == ()


# --inject makes the workload lie about one thing: the oracle for that thing, and it alone, must speak.
LIES = [
    ("huge-race", "stale", "zap-punch", {"stale data after hole punch in a * mapping"}),
    ("huge-race", "stale", "zap-truncate", {"stale data after truncate in a * mapping"}),
    ("huge-race", "zero", "collapse-punch", {"zeroes instead of data after hole punch in a * mapping"}),
    ("huge-race", "lost", "huge-cow", {"written data lost in huge-cow"}),
    ("huge-race", "lost", "mthp-anon", {"written data lost in mthp-anon"}),
    ("huge-race", "lost", "collapse-pin", {"written data lost in collapse-pin"}),
    ("hugetlb-race", "stale", "punch-shared", {"stale data after hole punch in a shared hugetlb mapping"}),
    ("hugetlb-race", "stale", "truncate-shared", {"stale data after truncate in a shared hugetlb mapping"}),
    ("hugetlb-race", "zero", "punch-shared", {"zeroes instead of data after hole punch in a shared hugetlb mapping"}),
    ("hugetlb-race", "reserve", "punch-shared", {"HugePages_Rsvd is wrong when all is quiet"}),
    ("hugetlb-race", "leak", "punch-private", {"HugePages_Free is wrong when all is quiet"}),
]


@pytest.mark.parametrize(("name", "lie", "case", "titles"), LIES, ids=lambda value: str(value).replace(" ", "-"))
def test_every_oracle_can_fail(
    binaries: dict[str, Path], tmp_path: Path, name: str, lie: str, case: str, titles: set[str]
) -> None:
    got = run_in(tmp_path, binaries[name], "--budget", "20", "--cases", case, "--inject", lie, "--seed", "2")
    if got.skipped.get(case, "").startswith("unsupported: "):
        assert got.code == SKIP
        return
    assert got.code == FAIL
    kinds = {re.sub(r"(?<=in a )(shared|private)(?= mapping)", "*", title) for title in got.findings}
    assert kinds == titles
    assert any(line.startswith("# detail: ") for line in got.lines)
    assert not any(re.search(r"\d", title) for title in got.findings), "titles are stable across runs"


@pytest.mark.parametrize(("name", "case"), [("huge-race", "zap-punch"), ("hugetlb-race", "punch-shared")])
def test_a_race_that_was_not_run_is_inconclusive(
    binaries: dict[str, Path], tmp_path: Path, name: str, case: str
) -> None:
    got = run_in(tmp_path, binaries[name], "--budget", "2", "--cases", case, "--inject", "idle")
    assert got.code == SKIP
    assert got.skipped[case].startswith(("unsupported: ", "inconclusive: counter rounds=0 below "))
