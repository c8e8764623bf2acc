"""From trials to what a bench says: metrics, comparisons, words, JUnit and the page."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from madebench import CASE, WHERE, made, sample

from rig import commandline
from rig.costs import bench, countctl, counts, html, metrics, plot, report, samples, words
from rig.costs.countctl import Counted, Reading, Site
from rig.costs.counts import Counts, Phase
from rig.costs.differences import Difference, Spread
from rig.costs.metrics import BASE, NULL, Bench, Kind, Trouble, compare, counts_of, regressions, slow_of, times_of
from rig.errors import ConfigError
from rig.model import CaseResult, Cell, Side, Status, TrialResult
from rig.reports import junit
from rig.runs import results
from rig.settings import config, reading

ROOT = Path(__file__).parents[2]
COUNTERS = {
    "pages": 1600,
    "ideal": 100,
    "timed": 100,
    "minflt": 110,
    "majflt": 0,
    "elapsed_ns": 2_000_000,
    "median_ns": 5000,
    "p99_ns": 9000,
}


def work(function: str, *, instructions: int = 0, locked: int = 0, entered: int = 0, calls: int = 0) -> counts.Work:
    return counts.Work(
        function=function, instructions=(instructions, calls), locked=(locked, calls), entered=(entered, 0)
    )


PHASE = Phase(
    work=(
        work("asm_exc_page_fault", entered=110, instructions=1100),
        work("filemap_map_pages", entered=110, instructions=32_000),
        work("filemap_fault", entered=11, calls=7),
        work("folio_wait_bit_common", entered=2),
        work("next_uptodate_folio", locked=3200),
    )
)


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_faults_per_page_and_per_fault() -> None:
    assert dict(counts_of(CASE, COUNTERS, PHASE)) == pytest.approx(
        {
            "atomics": 2.0,
            "instructions": 33_100 / 1600,
            "per_fault": 33_100 / 110,
            "waits": 2 / 110,
            "slow": 0.1,
            "excess": 0.1,
        }
    )


def test_an_exec_is_counted_with_its_system_calls_and_has_no_ideal() -> None:
    found = dict(counts_of("exec", COUNTERS, PHASE))
    assert found["atomics"] == 3207 / 1600
    assert "excess" not in found


def test_what_only_the_workload_counts_is_there_without_the_plugin() -> None:
    assert dict(counts_of(CASE, COUNTERS, None)) == pytest.approx({"excess": 0.1})
    assert slow_of({"trace_mm_filemap_map_pages": 10, "trace_mm_filemap_fault": 1}) == (("slow", 0.1),)
    assert slow_of({}) == ()


def test_times_are_rates_and_latencies() -> None:
    assert dict(times_of(COUNTERS)) == pytest.approx({"median": 5.0, "p99": 9.0, "rate": 50_000.0})


@pytest.mark.parametrize("counters", [{}, {"pages": 0, "timed": 3}, {"ideal": 5}])
def test_a_case_that_did_no_work_has_no_metrics(counters: dict[str, int]) -> None:
    assert counts_of(CASE, counters, PHASE) == times_of(counters) == ()


# -- counts by function -----------------------------------------------------------------------------------------------

LISTING = """\
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t next_uptodate_folio
ffffffff81000200 t next_uptodate_folio.cold
ffffffff81000300 T asm_exc_page_fault
ffffffff81000400 T __switch_to_asm
ffffffff81000500 T asm_sysvec_apic_timer_interrupt
0000000000000010 A fixed
ffffffff82000000 d data
"""


def test_the_code_of_a_kernel_is_its_symbols() -> None:
    code = counts.parse_code(LISTING)
    assert code.names[:3] == ("_text", "next_uptodate_folio", "next_uptodate_folio.cold")
    assert [role.name for _, _, role in code.spans] == ["PLAIN", "PLAIN", "PLAIN", "FAULT", "SWITCH", "INTERRUPT"]
    assert code.place(0xFFFFFFFF81000110) == ("next_uptodate_folio", 0x10)
    assert all(one[1] == other[0] for one, other in zip(code.spans, code.spans[1:], strict=False))


def test_parts_of_a_function_are_counted_with_it() -> None:
    one = Counted(instructions=(10, 1), locked=(2, 0), entered=(3, 1))
    phase = countctl.Phase(
        spans=((1, one), (2, one)),
        sites=(Site(address=0xFFFFFFFF81000110, executed=(4, 5)),),
    )
    reading = Reading(loaded=True, begun=2, phases=(phase,), lost_sites=1)
    found = counts.condense(reading, counts.parse_code(LISTING))
    (made,) = found.phases[0].work
    assert (made.function, made.instructions, made.locked) == ("next_uptodate_folio", (20, 2), (4, 0))
    assert made.entered == (3, 1)  # a jump into the cold part is no call
    (at,) = found.phases[0].locked_at
    assert (at.symbol, at.offset, at.executed) == ("next_uptodate_folio", 16, (4, 5))
    assert "1 phases had no room" in found.note
    assert "known by their function only" in found.note


# -- samples of trials ------------------------------------------------------------------------------------------------


def trial(*cases: CaseResult, status: Status = Status.PASS) -> TrialResult:
    return TrialResult(
        cell=Cell(flavour="release", machine="cpus4", workload="bench-faults", filesystem="tmpfs"),
        side=Side.BASE,
        prefix=0,
        tree="t",
        index=2,
        seed=3,
        status=status,
        reason="",
        accelerator="tcg",
        started="",
        evidence="",
        cases=cases,
    )


def case(name: str, **more: int) -> CaseResult:
    return CaseResult(name=name, status=Status.PASS, counters=tuple((COUNTERS | more).items()))


def test_phases_belong_to_the_cases_that_did_work() -> None:
    skipped = CaseResult(name="huge-private-read", status=Status.SKIP)
    other = Phase(work=(work("asm_exc_page_fault", entered=1), work("f", locked=16)))
    made = list(samples.samples(trial(case("a"), skipped, case("b")), "s", Kind.COUNTED, Counts(phases=(PHASE, other))))
    assert [(one.where.case, dict(one.values)["atomics"]) for one in made] == [("a", 2.0), ("b", 0.01)]
    assert (made[0].index, made[0].seed, made[0].where.cpus, made[0].subject) == (2, 3, 4, "s")


def test_phases_that_do_not_fit_the_cases_say_nothing() -> None:
    assert list(samples.samples(trial(case("a"), case("b")), "s", Kind.COUNTED, Counts(phases=(PHASE,)))) == []
    assert list(samples.samples(trial(case("a")), "s", Kind.COUNTED, Counts(phases=()))) == []


def test_without_the_plugin_a_trial_is_known_by_its_tracepoints() -> None:
    whole = replace(trial(case("a")), coverage=(("trace_mm_filemap_fault", 1), ("trace_mm_filemap_map_pages", 4)))
    made = list(samples.samples(whole, "s", Kind.COUNTED, None))
    assert [(one.where.case, dict(one.values)) for one in made] == [
        ("a", {"excess": pytest.approx(0.1)}),
        ("all-cases", {"slow": 0.25}),
    ]


def test_everybody_takes_turns_and_begins_as_often() -> None:
    cells = [Cell(flavour="f", machine=m, workload="w", filesystem="x") for m in ("cpus1", "cpus2")]
    names = ["base", "a", "b"]
    turns = list(bench.order(cells, names, 3))  # type: ignore[arg-type]  # order() looks at none of them
    assert len(turns) == len(set(turns)) == 18
    begins = [str(turns[at][2]) for at in range(0, 18, 3)]
    assert sorted(begins) == ["a", "a", "b", "b", "base", "base"]
    assert [index for index, _, _ in turns] == [0] * 6 + [1] * 6 + [2] * 6


# -- comparisons ------------------------------------------------------------------------------------------------------


def the(done: Bench, metric: str, subject: str = "s") -> metrics.Comparison:
    (found,) = metrics.named(done.comparisons, subject=subject, metric=metric)
    return found


def test_fewer_atomics_and_more_faults_per_second_are_better() -> None:
    done = made()
    assert the(done, "atomics").better is True
    assert the(done, "rate").better is True
    assert the(done, "excess").difference.change == pytest.approx(-0.02)
    assert the(done, "per_fault").better is False
    assert all(one.better is None for one in done.comparisons if one.subject == NULL)


def test_a_regression_is_a_claimed_change_for_the_worse_beyond_the_threshold() -> None:
    assert regressions(made()) == ()  # 2 % more instructions are below it
    assert [one.metric for one in regressions(made(atomics=7.0))] == ["atomics"]
    assert [one.metric for one in regressions(made(rate=50.0))] == ["rate"]
    assert regressions(made(NULL, atomics=7.0, null=False)) == ()


def test_only_trials_that_both_have_are_compared() -> None:
    samples = [sample(BASE, 0, atomics=1.0), sample(BASE, 1, atomics=9.0), sample("s", 0, atomics=2.0)]
    (found,) = compare(samples, "s", 0.99)
    assert (found.difference.first.high, found.difference.first.count) == (1.0, 1)
    assert compare(samples, "other", 0.99) == ()


def test_the_functions_that_changed_are_kept() -> None:
    (found,) = [one for one in made().functions if one.subject == "s"]
    assert [(one.function, one.atomics) for one in found.changes] == [("folio_unlock", (1.0, 0.0))]
    assert [one.changes for one in made().functions if one.subject == NULL] == [()]


# -- words and files --------------------------------------------------------------------------------------------------


def test_the_sentence_says_what_changed_and_where() -> None:
    said = words.sentence(made(), "s")
    assert said == (
        "s against the base, many-private-read on 4 CPUs: 2.00 fewer atomics per page (6.02 → 4.02): "
        "folio_unlock -1.00, excess faults 2.00 → 0 %, +2.0 % kernel instructions per fault, "
        "faults per second +19 % [+19 %, +20 %]."
    )


def test_a_sentence_about_too_few_trials_says_what_was_seen_and_claims_nothing() -> None:
    few = [one for one in made().samples if one.index == 0]
    done = replace(made(), comparisons=compare(few, "s", 0.99))
    assert "many-private-read on 4 CPUs: atomics per page 6.00 → 4.00 (no change claimed)" in words.sentence(done, "s")
    same = replace(made(), comparisons=tuple(replace(one, subject="s") for one in compare(few, NULL, 0.99)))
    assert "as many atomics per page as before (6.00)" in words.sentence(same, "s")


def test_the_cover_block_has_a_sentence_a_table_and_what_it_means() -> None:
    text = words.cover(made())
    assert "| **6.02 → 4.02** |" in text
    assert "| faults per second | median latency | 99th percentile |" in text
    assert "weak evidence" in text
    assert "Null control, counts: 0 claims in 3 comparisons" in text


def test_the_terminal_names_regressions() -> None:
    text = "\n".join(words.summary(made(atomics=7.0)))
    assert "worse by more than 5 %" in text
    assert "release/cpus4/tmpfs/many-private-read: atomics per page 6.02 -> 7.02" in text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.0123456, "0.0123"), (1.234567, "1.23"), (12345.6, "12346")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert words.number(value) == text


def test_a_regression_fails_in_junit_and_a_broken_trial_is_an_error() -> None:
    trouble = Trouble(subject="s", cell="c", kind=Kind.TIMED, status="CRASH", reason="boom", evidence="e")
    done = replace(made(atomics=7.0), troubles=(trouble,))
    root = ET.fromstring(junit.bench_xml(done))  # our own
    (failed,) = [one for one in root.iter("testcase") if one.find("failure") is not None]
    assert (failed.get("classname"), failed.get("name")) == ("bench.atomics", WHERE.id)
    assert len(list(root.iter("error"))) == 1
    assert [suite.get("name") for suite in root.iter("testsuite")] == ["s", NULL]


def test_the_exit_code_tells_a_regression_from_nothing_measured() -> None:
    assert report.exit_code(made()) == 0
    assert report.exit_code(made(rate=50.0)) == 1
    assert report.exit_code(replace(made(), comparisons=())) == 4
    trouble = Trouble(subject="s", cell="c", kind=Kind.TIMED, status="CRASH", reason="boom", evidence="e")
    assert report.exit_code(replace(made(), troubles=(trouble,))) == 1


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]


def test_the_page_shows_curves_and_fetches_nothing() -> None:
    done = made("a <script>")
    other = replace(WHERE, cpus=1)
    more = tuple(replace(one, where=other) for one in done.comparisons)
    page = html.page(replace(done, comparisons=(*done.comparisons, *more)))
    found = _Links()
    found.feed(page)
    assert found.fetched == []
    assert {"svg", "table", "details"} <= found.tags
    assert "script" not in found.tags
    assert "folio_unlock" in page


def test_histograms_stand_beside_the_curves_for_each_number_of_cpus() -> None:
    done = made()
    assert plot.curves(done, CASE) == ""
    drawn = plot.histograms(done, CASE)
    assert drawn.startswith("<svg")
    for text in ("4 vCPUs, tmpfs", "latency of a fault, µs", ">base<", ">s<"):
        assert text in drawn
    assert NULL not in drawn
    assert "$" not in drawn  # of a logarithmic axis matplotlib makes TeX, which SVG text shows as it stands
    other = replace(WHERE, cpus=1)
    more = tuple(replace(one, where=other) for one in done.samples)
    assert "1 vCPU, tmpfs" in plot.histograms(replace(done, samples=(*done.samples, *more)), CASE)
    bare = replace(done, samples=tuple(replace(one, latencies=()) for one in done.samples))
    assert plot.histograms(bare, CASE) == ""
    assert "Figures claim nothing" in html.page(done)
    assert "Figures claim nothing" not in html.page(bare)


def test_of_a_null_control_alone_both_sides_are_drawn() -> None:
    done = made()
    alone = replace(done, subjects=tuple(one for one in done.subjects if one.name == NULL))
    assert f">{NULL}<" in plot.histograms(alone, CASE)


@pytest.mark.parametrize("done", [made(), made(null=False), replace(made(), samples=(), functions=())])
def test_any_bench_fits_the_schema(done: Bench) -> None:
    data = json.loads(json.dumps(results.to_json(done), allow_nan=False))
    validator = jsonschema.Draft202012Validator(json.loads(metrics.SCHEMA.read_text()))
    validator.validate(data)
    for broken in ({**data, "schema_version": 1}, {**data, "more": 1}, {**data, "level": "high"}):
        assert not validator.is_valid(broken)


def test_the_schema_names_every_field_and_no_other() -> None:
    schema = json.loads(metrics.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    named = {"Difference": Difference, "Spread": Spread}
    for name, described in {"Bench": schema, **schema["$defs"]}.items():
        kind = named.get(name) or getattr(metrics, name)
        assert set(described["properties"]) == {field.name for field in dataclasses.fields(kind)}, name
        assert sorted(described["required"]) == sorted(described["properties"]), name
        assert described["additionalProperties"] is False, name


def test_all_files_are_written_and_the_json_is_read_back(tmp_path: Path) -> None:
    done = made()
    report.write(tmp_path, done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.html", "junit.xml", "summary.md", "summary.txt"]
    assert results.from_json(Bench, json.loads(json.dumps(results.to_json(done), allow_nan=False))) == done


# -- configuration ----------------------------------------------------------------------------------------------------


def test_the_cells_of_a_bench_are_its_own() -> None:
    loaded = reading.load(ROOT / "rig.yaml", ["bench.cpus=[1, 8]", "bench.filesystems=tmpfs", "bench.cases=many-*"])
    settled = bench.settle(loaded)
    from rig.settings.matrix import cells

    assert [one.id for one in cells(settled)] == [
        "release/cpus1/bench-faults/tmpfs",
        "release/cpus8/bench-faults/tmpfs",
    ]
    assert settled.machines["cpus8"].cmdline == ("noreplace-smp",)
    assert settled.workloads["bench-faults"].args == {"cases": "many-*", "faults": 4000}
    assert settled.perturb.stalls.share == 0


def test_words_of_the_command_line_are_those_of_a_bench() -> None:
    overrides, against = commandline.bench_words(["pairs=3", "series=x", "against=y", "cpus=[1, 2]"])
    assert overrides == ["bench.pairs=3", "series=x", "bench.cpus=[1, 2]"]
    assert against == "y"
    assert commandline.bench_words([]) == ([], "")
    own = {name for name in config.Bench.model_fields if name != "flavours"}
    assert own == set(commandline.BENCH_KEYS)


def test_series_are_chosen_by_name() -> None:
    assert bench.choose(ROOT, ["cow-*", "null", "costs/*"]) == (
        "cow-nolock",
        NULL,
        "costs/lock-taken-twice",
        "costs/no-fault-around-in-shared",
    )
    with pytest.raises(ConfigError, match="no series is called 'nothing'"):
        bench.choose(ROOT, ["nothing"])
