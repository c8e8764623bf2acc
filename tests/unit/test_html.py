"""The page of a run: complete, bounded, and any byte of a guest in it is text."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from madeup import BUG, STALE, cell, kernel, run, runs, trial

from rig.model import CaseResult, DirectedStalls, Finding, FunctionStalls, Perturbation, Side, Status
from rig.reports import html
from rig.reports.html import logs, plots, view
from rig.runs.results import Patch, Run
from rig.touches.touched import Function

#: Elements that HTML knows to have no end.
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given[name]) for name in ("href", "src", "xlink:href", "action") if name in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def page(whole: Run, root: Path) -> Page:
    html.write_html(root / "report.html", whole, root)
    return Page((root / "report.html").read_text(encoding="utf-8"))


def text(whole: Run, root: Path) -> str:
    return " ".join(page(whole, root).words.split())


EVIL = '</pre></script><script>document.title="run"</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


def crashed(**changes: object) -> Run:
    finding = dataclasses.replace(
        BUG, text=f"{BUG.text}\n next_uptodate_folio+0x1/0x2\n{EVIL}", first_line=3, last_line=4
    )
    bad = [trial(Side.PATCHED, Status.CRASH, finding, index=i) for i in (1, 2, 3)]
    whole = run(
        *(trial(Side.BASE, index=i) for i in range(4)),
        trial(index=0, cases=(CaseResult(name="punch", status=Status.PASS, counters=(("rounds", 120),)),)),
        *(dataclasses.replace(one, first_finding=1.5) for one in bad),
    )
    patch = Patch(
        number=1,
        subject="mm: <b>",
        commit="c",
        tree="1" * 40,
        functions=(Function("mm/filemap.c", "next_uptodate_folio"),),
    )
    series = dataclasses.replace(whole.series, patches=(patch,))
    return dataclasses.replace(whole, series=series, kernels=(kernel(),), **changes)  # type: ignore[arg-type]


def test_a_stranger_reads_what_broke_where_and_how_to_see_it(tmp_path: Path) -> None:
    told = text(crashed(), tmp_path)
    for piece in (
        "REGRESSION The kernel breaks with the series “fault-around-private”: 3 of 4 test runs failed",
        "0 of 4 without it.",
        "What broke kernel BUG in filemap_unaccount_folio",
        "On the stack: next_uptodate_folio (patch 1).",
        "next_uptodate_folio+0x1/0x2 ◀ patch 1",
        "On which machines smp4 (debug); in 1 of 1 cells",
        "rig test series=patches/fault-around-private select=debug/smp4/truncate-race/ext4 'matrix={}' seed=1001",
        "rig rerun trials/patched/debug-smp4-truncate-race-ext4-1",
        "Ran under TCG, without hardware virtualisation. Weaker evidence",
        "KVM did not boot anything in 10 s",
        "✗ 3/4",
        "7.2.9",
        "0" * 40,
        "flavours: debug: - base",
    ):
        assert piece in told


def test_nothing_is_fetched_and_markup_of_a_guest_is_text(tmp_path: Path) -> None:
    made = page(crashed(), tmp_path)
    assert "<script>document.title" in made.words
    assert "{{ 7 * 7 }}" in made.words
    assert "patch 1, “mm: <b>”" in made.words
    assert made.tags.isdisjoint({"script", "link", "img", "iframe", "object", "b"})
    assert all(link.startswith("#") for link in made.links)  # there is no evidence to link to
    raw = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in raw
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", raw)
    assert len(made.ids) == len(set(made.ids))


def test_the_console_is_quoted_around_the_report_and_the_evidence_is_linked(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "patched" / "debug-smp4-truncate-race-ext4-1"
    folder.mkdir(parents=True)
    (folder / "console.log").write_bytes(b"one\ntwo\xff\x1b[1m<i>\nBUG here\nRIP there\n" + b"after\n" * 100)
    made = page(crashed(), tmp_path)
    assert "     2  two\\xff\\x1b[1m<i>" in made.words
    assert f"{4 + logs.AFTER:6d}  after" in made.words
    assert f"{5 + logs.AFTER:6d}  after" not in made.words
    assert "trials/patched/debug-smp4-truncate-race-ext4-1/console.log" in made.links


def test_an_excerpt_is_bounded_whatever_the_console_holds(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * (1 << 20) + b"\n" + b"y\n" * 10_000 + b"last")
    lines = logs.excerpt(log, 2, 9_000)
    assert len(lines) == logs.MOST_LINES
    assert lines[0].number == 1
    assert not lines[0].inside
    assert lines[1].inside
    assert lines[0].text == "x" * logs.LONGEST + f" [... {(1 << 20) - logs.LONGEST} bytes more]"
    assert [line.text for line in logs.excerpt(log, 10_002, 10_002)][-1] == "last"
    assert logs.excerpt(log, 20_000, 20_001) == ()
    assert logs.excerpt(tmp_path / "gone", 1, 2) == ()


def test_a_huge_run_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    findings = [
        dataclasses.replace(STALE, title=f"stale {i}", signature=f"data:{i}", text="x" * 200_000) for i in range(60)
    ]
    whole = run(*(trial(Side.PATCHED, Status.FAIL, one, index=i) for i, one in enumerate(findings)))
    html.write_html(tmp_path / "report.html", whole, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < view.MOST_FINDINGS * view.MOST_TEXT * 1.5
    told = text(whole, tmp_path)
    assert "30 more findings stand in the table above" in told
    assert "characters cut here" in told


@settings(suppress_health_check=list(HealthCheck), max_examples=40)
@given(runs)
def test_any_run_has_a_page(tmp_path: Path, whole: Run) -> None:
    assert str(whole.verdict.judgement) in Page(html.render(view.of_run(whole, tmp_path))).words


@settings(suppress_health_check=list(HealthCheck), max_examples=5)
@given(runs)
def test_any_run_has_figures(whole: Run) -> None:
    for figure in plots.figures(whole.trials, whole.stages):
        assert figure.svg.startswith("<svg viewBox=")


def test_the_matrix_counts_what_counts() -> None:
    whole = [
        trial(Side.BASE),
        trial(Side.PATCHED, Status.CRASH, BUG),
        trial(Side.PATCHED, index=1),
        trial(Side.PATCHED, Status.LOST, index=2),
        trial(Side.PATCHED, Status.INCONCLUSIVE, where=cell("xfs", machine="numa8")),
    ]
    heat = view.heat_map(whole)
    assert heat.columns == (("debug", "numa8"), ("debug", "smp4"))
    ext4, xfs = heat.rows
    assert ext4.squares[0] is None
    assert ext4.squares[1] is not None
    base, patched = ext4.squares[1]
    assert (str(base.tally), base.heat) == ("0/1", 0)
    assert (str(patched.tally), patched.heat, patched.words) == ("1/2", 3, "1 PASS, 1 CRASH, 1 LOST")
    assert xfs.squares[0] is not None
    assert (str(xfs.squares[0][1].tally), xfs.squares[0][1].words) == ("0/0", "1 INCONCLUSIVE")


def test_functions_of_the_series_that_never_ran_are_told() -> None:
    functions = tuple(
        FunctionStalls(function=name, kind=kind, executed=executed, stalls=0, stalled=0.5)
        for name, kind, executed in (("idle", "callee", 0), ("busy", "callee", 9), ("never", "touched", 0))
    )
    directed = DirectedStalls(means="tcg-plugin", executed=9, stalls=0, stalled=1.0, withheld=0, functions=functions)
    done = Perturbation(kinds=("idle",), steps=3, stalled=0.1, directed=directed)
    seen = view.of_run(run(*(dataclasses.replace(trial(index=i), perturbation=done) for i in range(2))), Path())
    assert [(one.function, one.executed, one.seconds) for one in seen.stalled] == [
        ("never", (0, 0), (0, 1.0)),
        ("busy", (0, 18), (0, 1.0)),
    ]
    assert seen.perturbation == ("jitter of vCPU threads was on (idle)", "stalls inside functions by tcg-plugin")


def test_how_soon_takes_those_that_saw_nothing_into_account() -> None:
    base = trial()
    trials = [
        dataclasses.replace(base, first_finding=1.0),
        dataclasses.replace(base, timing=dataclasses.replace(base.timing, workload=2.0)),
        dataclasses.replace(base, first_finding=3.0),
        dataclasses.replace(base, timing=dataclasses.replace(base.timing, workload=10.0)),
    ]
    # Kaplan and Meier: 3/4 are left after the first, and half of these after the second, as two are left at risk.
    assert plots.seen_by(trials) == [(0.0, 0.0), (1.0, 0.25), (2.0, 0.25), (3.0, 0.625), (10.0, 0.625)]


def test_figures_are_drawn_in_the_colours_of_the_page_and_share_no_ids() -> None:
    whole = crashed()
    drawn = plots.figures(whole.trials, whole.stages)
    assert [figure.title for figure in drawn] == [
        "How often each cell failed",
        "How soon something was found",
        "Where the time of the run went",
        "What a trial took",
    ]
    svgs = "".join(figure.svg for figure in drawn)
    assert "var(--patched)" in svgs
    assert "currentColor" in svgs
    assert not re.search(r"#[0-9a-f]{6}\b", svgs)
    assert plots.figures((), ()) == ()
    odd = dataclasses.replace(trial(), cell=dataclasses.replace(cell(), filesystem="$x^2$</svg>\ud800"))
    assert "$x^2$&lt;/svg&gt;\\ud800" in plots.figures((odd,), ())[0].svg


def test_a_finding_of_no_trial_is_told_all_the_same(tmp_path: Path) -> None:
    whole = crashed()
    (found,) = whole.verdict.findings
    lost = dataclasses.replace(whole, trials=())
    assert view.of_run(lost, tmp_path).findings[0].finding is None
    assert found.title in text(lost, tmp_path)


def test_what_the_finding_looked_like_is_that_of_the_example(tmp_path: Path) -> None:
    other = Finding(oracle="console", kind="bug", title=BUG.title, signature=BUG.signature, text="another")
    whole = run(trial(Side.PATCHED, Status.CRASH, BUG), trial(Side.PATCHED, Status.CRASH, other, index=1))
    told = text(whole, tmp_path)
    assert "kernel BUG at mm/filemap.c:154!" in told
    assert "another" not in told
    assert "Trials that saw it (2)" in told
