"""The verdict in words, for a pipe and for a cover letter."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from madeup import BUG, cell, run, runs, trial

from rig.model import Side, Status
from rig.reports import again, summary
from rig.runs.results import Run

REGRESSION = run(
    *(trial(Side.BASE, index=i) for i in range(4)),
    trial(index=0),
    *(trial(Side.PATCHED, Status.CRASH, BUG, index=i) for i in range(1, 4)),
    trial(Side.PATCHED, Status.LOST, where=cell("xfs"), reason="QEMU died: status 1"),
)


def test_plain_text_begins_with_the_verdict_and_has_everything() -> None:
    lines = summary.text(REGRESSION, Path("results/now")).splitlines()
    assert lines[0].startswith("REGRESSION: ")
    whole = "\n".join(lines)
    for piece in (
        BUG.title,
        "patched 3/4, base 0/4, p = 0.04",
        "rig rerun results/now/trials/patched/debug-smp4-truncate-race-ext4-1",
        "1 trial lost",
        "TCG",
        "debian:linux-source-6.12",
        "tree 111111111111",
    ):
        assert piece in whole
    rows = [line.split() for line in lines if line.strip().startswith("debug/")]
    assert rows == [
        ["debug/smp4/truncate-race/ext4", "4", "pass", "3", "crash", "1", "pass"],
        ["debug/smp4/truncate-race/xfs", "-", "1", "lost"],
    ]


def test_what_the_kernel_did_is_told_by_the_trial_that_did_least() -> None:
    many, few = (("pgfault", 9000), ("thp_split_page", 3)), (("pgfault", 12), ("thp_split_page", 0))
    told = summary.text(run(trial(coverage=many), trial(index=1, coverage=few), trial(index=2)))
    assert "kernel counters: pgfault 12 (the least of any trial)" in told
    assert "kernel counters" not in summary.text(REGRESSION)


def test_markdown_is_a_block_for_a_cover_letter() -> None:
    block = summary.markdown(REGRESSION)
    lines = block.splitlines()
    assert max(map(len, lines)) <= summary.WIDTH
    assert "**REGRESSION**" in lines[0]
    assert "| REGRESSION | 0/4  | 3/4     | 1       |" in lines
    assert "1. kernel BUG in filemap_unaccount_folio" in lines
    assert "   rig test series=patches/fault-around-private \\" in lines
    assert "     select=debug/smp4/truncate-race/ext4 'matrix={}' seed=1001 \\" in lines
    assert "TCG (emulated" in block
    assert "---" not in lines  # git am would cut the letter there


def test_a_long_command_stays_one() -> None:
    series = dataclasses.replace(REGRESSION.series, path="patches/" + "x" * 70)
    long = dataclasses.replace(REGRESSION, series=series, overrides=("perturb.stalls.share=0.1", "a=b c"))
    block = summary.markdown(long)
    begin = block.index("   rig test")
    command = block[begin : block.index("\n\n", begin)].replace("\\\n", "")
    assert shlex.split(command) == shlex.split(again.anywhere(long, next(one for one in long.trials if one.findings)))
    assert "'a=b c'" in command


def test_commands_name_nothing_of_the_host() -> None:
    series = dataclasses.replace(REGRESSION.series, path="/home/me/work/fault-around-private")
    there = dataclasses.replace(REGRESSION, series=series, overrides=("out=/tmp/x", "store=/srv/rig", "seed=3"))
    for told in (summary.markdown(there), summary.text(there)):
        assert "/home/me" not in told
        assert "/tmp/x" not in told
        assert "/srv" not in told
        assert "series=fault-around-private" in told


@pytest.mark.parametrize("complete", [True, False])
def test_an_incomplete_run_says_so(complete: bool) -> None:
    partial = dataclasses.replace(REGRESSION, complete=complete)
    assert ("INCOMPLETE" in summary.text(partial)) is not complete
    assert ("INCOMPLETE" in summary.markdown(partial)) is not complete


def test_a_clean_run_says_what_it_excludes() -> None:
    clean = run(*(trial(index=i) for i in range(40)))
    assert "below 7.2 %" in summary.text(clean)
    assert "CLEAN" in summary.markdown(clean)
    assert "rig rerun" not in summary.markdown(clean)


def test_an_empty_run() -> None:
    assert summary.text(run()).startswith("INCONCLUSIVE")
    assert "none" in summary.markdown(run())


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(runs)
def test_any_run_can_be_told(whole: Run) -> None:
    assert str(whole.verdict.judgement) in summary.text(whole)
    assert str(whole.verdict.judgement) in summary.markdown(whole)


def test_words_are_counted() -> None:
    assert "fault-around-private, 1 patch, tree" in summary.text(REGRESSION)
    patches = REGRESSION.series.patches * 2
    longer = dataclasses.replace(REGRESSION, series=dataclasses.replace(REGRESSION.series, patches=patches))
    assert "fault-around-private, 2 patches, tree" in summary.text(longer)
    assert "kernels: debug (base); gcc" in summary.text(REGRESSION)
    other = dataclasses.replace(REGRESSION, host=dataclasses.replace(REGRESSION.host, accelerator="kvm"))
    assert "KVM" not in summary.text(other)  # what the trials ran on counts
