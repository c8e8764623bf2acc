"""bench-faults, compiled as the guest gets it: the work is what it says it is, whatever the seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hostworkload import BROKEN, PASS, SOURCES, Run, build, run, run_cases

from rig.costs import latencies

NAME = "bench-faults"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("workloads"), NAME)[NAME]


def counters(got: Run) -> Mapping[str, Mapping[str, int]]:
    """What each case that did work counted, by case."""
    found: dict[str, dict[str, int]] = {}
    case = ""
    for line in got.lines:
        words = line.split()
        if line.startswith("# case "):
            case = words[2]
        elif line.startswith("# counter ") and "findings" not in line:
            name, value = words[2].split("=")
            found.setdefault(case, {})[name] = int(value)
    return found


def test_all_cases_do_their_work_and_leave_nothing_behind(program: Path, tmp_path: Path) -> None:
    got = run_cases(program, tmp_path, "--seed", "1", "--faults", "200", "--mappers", "3")
    assert got.code == PASS
    assert got.findings == ()
    assert all(ok == "ok" for ok, _, _ in got.results)
    assert all(why is None or why.startswith("unsupported: ") for _, _, why in got.results)
    assert list(tmp_path.iterdir()) == []
    done = counters(got)
    assert {"one-private-read", "many-private-read", "many-private-cow", "threads-private-read", "exec"} <= set(done)
    for case, found in done.items():
        assert found["elapsed_ns"] > 0, case
        assert found["median_ns"] <= found["p99_ns"], case
        assert found["pages"] >= found["timed"] > 0, case
        shares = latencies.histogram(found)
        assert sum(count for _, count in shares) == found["timed"], case
        assert len(shares) == sum(name.startswith("latency_") for name in found), case
        # The bucket of the median holds the median, and so does that of the 99th percentile.
        for name, share in (("median_ns", 0.5), ("p99_ns", 0.99)):
            rank, below = min(found["timed"] - 1, int(found["timed"] * share)), 0
            for low, count in shares:
                if below <= rank < below + count:
                    assert low <= found[name] < latencies.bucket_end(low), case
                below += count
        assert found["mappers"] == (1 if case.startswith("one-") else 3), case


def test_the_work_is_the_same_for_every_seed_and_as_much_as_was_asked_for(program: Path, tmp_path: Path) -> None:
    fixed = ("mappers", "pages", "ideal", "timed")
    one, other = (
        {case: [found[name] for name in fixed] for case, found in counters(got).items()}
        for got in (
            run_cases(program, tmp_path, "--seed", str(seed), "--faults", "320", "--mappers", "2") for seed in (1, 2)
        )
    )
    assert one == other
    # 16 pages of 4 KiB for each fault: 2 mappers, 10 sweeps, 16 faults each
    assert one["many-private-read"] == [2, 2 * 10 * 256, 320, 320]
    # a fault for each page
    assert one["one-private-cow"] == [1, 256, 256, 256]


def test_each_page_that_is_written_for_the_first_time_takes_a_fault(program: Path, tmp_path: Path) -> None:
    got = run_cases(program, tmp_path, "--cases", "one-private-cow", "--faults", "1024")
    found = counters(got)["one-private-cow"]
    assert 1024 <= found["minflt"] + found["majflt"] <= 1024 + 16


def test_the_work_stands_between_two_marks_that_the_plugin_knows(program: Path) -> None:
    code = program.read_bytes()
    for number in (0, 1):
        assert bytes([0x0F, 0x1F, 0x80, *b"RIG", number]) in code


@pytest.mark.parametrize("args", [("--faults", "15"), ("--pages", "1"), ("--mappers", "65"), ("--cases", "nothing*")])
def test_bad_options_bail_out(program: Path, tmp_path: Path, args: tuple[str, str]) -> None:
    got = run(program, "--dir", tmp_path, *args)
    assert got.code == BROKEN
    assert got.lines[-1].startswith("Bail out! ")


def test_help_names_the_options(program: Path) -> None:
    got = run(program, "--help")
    assert got.code == PASS
    for word in ("--mappers", "--pages", "--faults", "cases:"):
        assert word in "\n".join(got.lines)
    assert (SOURCES / f"{NAME}.c").is_file()
