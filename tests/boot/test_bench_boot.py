"""The kernel's work is counted on a real kernel under real QEMU: the numbers are what the code of fault-around says."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rig.costs import bench, counts, samples
from rig.costs.counts import Counts, Phase
from rig.costs.metrics import Kind, counts_of
from rig.front.ui import Ui
from rig.model import Side, Status, TrialResult
from rig.pipeline import Options, Pipeline
from rig.runs import campaign
from rig.settings.reading import load

pytestmark = pytest.mark.boot

ROOT = Path(__file__).parents[2]
CASES = ("one-private-read", "one-private-cow", "many-private-read")
PAGES, WINDOW = 256, 16


@pytest.fixture(scope="module")
def counted(real_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialResult, Counts]:
    """One trial of the base kernel, with one CPU and the debug flavour, which other tests have built."""
    words = [f"store={real_store}", "bench.flavours=debug", "bench.cpus=1", "bench.filesystems=tmpfs"]
    words += [f"bench.cases=[{', '.join(CASES)}]", "bench.faults=320"]
    pipeline = Pipeline(bench.settle(load(ROOT / "rig.yaml", words)), Options(jobs=1), Ui())
    kernel = pipeline.built(0)["debug"]
    root = tmp_path_factory.mktemp("bench")
    lab, _ = campaign.lab_on(pipeline, root, kernel, threading.Event())
    kit = counts.kit(pipeline.store, pipeline.builder.compiler, {kernel.key: kernel.vmlinux}, "tcg")
    assert kit.note == ""
    spec = campaign.spec_of(pipeline, kernel, pipeline.cells[0], Side.BASE, index=0, seed=1)
    lab = replace(lab, accelerator="tcg")
    spec = replace(spec, tracepoints=(), plugin=lambda folder: kit.write_control(folder, kernel.key, 1))
    from rig.trials import trial

    result = trial.run(spec, lab)
    return result, kit.keep(root / spec.place, kernel.key)


def case(counted: tuple[TrialResult, Counts], name: str) -> tuple[dict[str, int], Phase]:
    result, found = counted
    number = [one.name for one in result.cases].index(name)
    return dict(result.cases[number].counters), found.phases[number]


def test_each_case_is_a_phase(counted: tuple[TrialResult, Counts]) -> None:
    result, found = counted
    assert result.status is Status.PASS, result.reason
    assert found.note == ""
    assert tuple(one.name for one in result.cases) == CASES
    assert len(found.phases) == len(CASES)
    made = list(samples.samples(result, "base", Kind.COUNTED, found))
    assert [one.where.case for one in made] == list(CASES)


@pytest.mark.parametrize("name", ["one-private-read", "many-private-read"])
def test_fault_around_is_entered_once_for_each_fault_and_maps_each_page(
    counted: tuple[TrialResult, Counts], name: str
) -> None:
    counters, phase = case(counted, name)
    faults = phase.entered(counts.FAULT_ENTRY)
    assert abs(faults - counters["minflt"]) <= 2  # those of the coordinating process are not the mappers'
    assert 0 <= faults - counters["ideal"] <= faults // 10
    assert abs(phase.entered("filemap_map_pages") - faults) <= 2
    assert abs(phase.entered("set_pte_range") - counters["pages"]) <= counters["pages"] // 20


def test_a_page_that_is_mapped_around_a_fault_is_locked_and_unlocked(counted: tuple[TrialResult, Counts]) -> None:
    counters, phase = case(counted, "one-private-read")
    values = dict(counts_of("one-private-read", counters, phase))
    pages = counters["pages"]
    by_function = {one.function: one for one in phase.work}
    locks = by_function["next_uptodate_folio"].locked[0]
    # a reference and the page lock for each page
    assert 1.9 * pages <= locks <= 2.2 * pages
    # what is given back: the lock, in folio_unlock()
    assert 0.9 * pages <= by_function["folio_unlock"].locked[0] <= 1.1 * pages
    assert values["atomics"] > 3
    sites = [one for one in phase.locked_at if one.symbol == "next_uptodate_folio"]
    assert sum(one.executed[0] for one in sites) == locks


@pytest.mark.parametrize("name", ["one-private-read", "many-private-read"])
def test_each_page_of_each_window_is_visited(counted: tuple[TrialResult, Counts], name: str) -> None:
    _, phase = case(counted, name)
    around = phase.entered("filemap_map_pages")
    # Two sources that know nothing of each other; a window of another process, or of its end, may be smaller.
    assert phase.visited is not None
    assert 0 <= WINDOW * around - phase.visited <= 2 * WINDOW
    # With one CPU somebody is stopped between lock and unlock only when a tick comes there.
    assert phase.skipped is not None
    assert 0 <= phase.skipped <= 0.01


def test_a_write_fault_that_copies_does_not_enter_fault_around(counted: tuple[TrialResult, Counts]) -> None:
    counters, phase = case(counted, "one-private-cow")
    assert counters["ideal"] == counters["pages"] == PAGES
    assert phase.entered("filemap_map_pages") <= 2
    assert abs(phase.entered(counts.FAULT_ENTRY) - PAGES) <= 2
