"""Directed stalls: the plan of the episodes, what the plugin is told, and what is reported."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.perturbation.stallctl import Block, Count
from rig.perturbation.stalls import (
    FIRST_EPISODE,
    WEIGHTS,
    Episode,
    Kit,
    Rates,
    Stalls,
    episodes,
    kinds_of,
    mean_length,
    reported,
    setting_of,
    write_control,
)
from rig.touches.functions import Kind, Range, Span
from rig.touches.targets import Targets


def span(function: str, kind: Kind = Kind.TOUCHED, start: int = 0x1000, length: int = 16) -> Span:
    return Span(
        start=start,
        length=length,
        range=Range(symbol="s", file="", offset=0, length=length, function=function, kind=kind),
    )


SPANS = (span("one"), span("two", Kind.INLINED, 0x1010), span("help", Kind.CALLEE, 0x2000))
TARGETS = Targets(spans=SPANS)
KINDS = kinds_of(TARGETS)
LIMITS = {"share": 0.25, "longest": 0.02, "seconds": 1.5}

kinds = st.dictionaries(st.text("abcdef_", min_size=1, max_size=6), st.sampled_from(list(Kind)), min_size=1)
seeds = st.integers(0, 2**31)


def plan(seed: int, functions: dict[str, Kind], count: int = 12) -> list[Episode]:
    return list(islice(episodes(seed, functions, **LIMITS), count))


@given(seeds, kinds)
def test_episodes_are_the_same_for_the_same_seed_and_keep_within_the_limits(seed: int, known: dict[str, Kind]) -> None:
    found = plan(seed, known)
    assert found == plan(seed, known)
    assert found[0].seconds <= FIRST_EPISODE
    for one in found:
        assert 0 < one.longest <= LIMITS["longest"] + 1e-9
        assert 0 < one.share <= LIMITS["share"] + 1e-9
        assert 0 < one.seconds <= 1.5 * LIMITS["seconds"]
        assert one.functions <= known.keys()
        assert one.functions


@given(seeds, kinds)
def test_every_episode_has_a_function_of_the_series_when_there_is_one(seed: int, known: dict[str, Kind]) -> None:
    ours = {name for name, kind in known.items() if kind in (Kind.TOUCHED, Kind.INLINED)}
    assert not ours or all(one.functions & ours for one in plan(seed, known))


@given(seeds)
def test_a_function_more_does_not_change_whether_the_others_are_picked(seed: int) -> None:
    """Base and patched get the same, and the patched kernel has functions that the base has not."""
    less = {f"f{number}": Kind.TOUCHED for number in range(20)}
    more = less | {"fresh": Kind.TOUCHED}
    for base, patched in zip(plan(seed, less), plan(seed, more), strict=True):
        assert (base.longest, base.share, base.rare, base.seconds) == (
            patched.longest,
            patched.share,
            patched.rare,
            patched.seconds,
        )
        assert patched.functions - {"fresh"} in (base.functions, frozenset())  # none but the fresh one was picked


def test_episodes_differ_between_each_other_and_between_seeds() -> None:
    many = {f"f{number}": Kind.TOUCHED for number in range(10)}
    assert len({one.functions for one in plan(1, many)}) > 3
    assert len({one.longest for one in plan(1, many)}) == 12
    assert {one.rare for one in plan(1, many)} == {True, False}
    assert plan(1, many) != plan(2, many)


def episode(*functions: str, rare: bool = False, share: float = 0.1, longest: float = 0.01) -> Episode:
    return Episode(seconds=1.0, longest=longest, share=share, rare=rare, functions=frozenset(functions))


def test_functions_that_are_not_in_the_episode_weigh_nothing() -> None:
    weights = setting_of(episode("one"), SPANS, (0.0, 0.0, 0.0), 4).weights
    assert weights[0] > 0
    assert weights[1:] == (0, 0)


def test_a_callee_weighs_less_than_what_is_touched() -> None:
    weights = setting_of(episode("one", "help"), SPANS, (0.0, 0.0, 0.0), 4).weights
    assert weights[0] * WEIGHTS[Kind.CALLEE] == weights[2] * WEIGHTS[Kind.TOUCHED]


def test_what_is_run_seldom_weighs_more_where_that_is_wanted() -> None:
    often = (16_000.0, 160.0, 0.0)
    plain = setting_of(episode("one", "two"), SPANS, often, 4).weights
    rare = setting_of(episode("one", "two", rare=True), SPANS, often, 4).weights
    assert plain[0] == plain[1]
    assert rare[1] == 100 * rare[0]


@given(
    st.lists(st.floats(0, 1e8), min_size=3, max_size=3),
    st.floats(0.001, 0.5),
    st.floats(0.0001, 1.0),
    st.booleans(),
    st.integers(2, 64),
)
def test_stalls_come_as_often_as_the_share_asks_for(
    executed: list[float], share: float, longest: float, rare: bool, vcpus: int
) -> None:
    wanted = episode("one", "two", "help", rare=rare, share=share, longest=longest)
    setting = setting_of(wanted, SPANS, executed, vcpus)
    assert setting.shortest <= setting.longest == longest
    assert setting.distance >= 1
    run = sum(weight * rate for weight, rate in zip(setting.weights, executed, strict=True))
    if run and setting.distance > 1000:  # else rounding shows
        stalled = run / setting.distance * mean_length(setting.shortest, setting.longest)
        assert stalled == pytest.approx(share * vcpus, rel=0.01)


def test_rates_follow_what_is_run_now() -> None:
    rates = Rates(2)
    total = 0
    for _ in range(20):
        total += 100
        rates.note([total, 0], 0.1)
    assert rates.values == [pytest.approx(1000, rel=0.01), 0.0]
    for _ in range(20):
        rates.note([total, 0], 0.1)
    assert rates.values[0] < 1


def test_a_function_is_what_it_is_first() -> None:
    both = Targets(spans=(span("one", Kind.CALLEE), span("one", Kind.TOUCHED, 0x2000)))
    assert kinds_of(both) == {"one": Kind.TOUCHED}


def test_a_report_sums_the_spans_of_a_function() -> None:
    spans = (*SPANS, span("one", start=0x3000))
    counts = [Count(executed=n, stalls=n, stalled=n / 10, withheld=n) for n in (1, 2, 3, 4)]
    report = reported(spans, counts, "said")
    assert (report.means, report.executed, report.stalls, report.stalled, report.withheld) == (
        "tcg-plugin",
        10,
        10,
        1.0,
        10,
    )
    assert report.note == "said"
    by_name = {(one.function, one.kind): (one.executed, one.stalls, one.stalled) for one in report.functions}
    assert by_name == {
        ("one", "touched"): (5, 5, 0.5),
        ("two", "inlined"): (2, 2, 0.2),
        ("help", "callee"): (3, 3, 0.3),
    }


@pytest.mark.parametrize(
    ("kit", "vcpus"),
    [
        (Kit(), 4),
        (Kit(library=Path("/stall.so"), targets={}), 4),
        (Kit(library=Path("/stall.so"), targets={"key": Targets(spans=())}), 4),
        (Kit(targets={"key": TARGETS}, note="no plugin"), 4),
        (Kit(library=Path("/stall.so"), targets={"key": TARGETS}), 1),  # nobody is left to run
    ],
)
def test_without_plugin_targets_or_a_second_cpu_there_are_no_stalls(tmp_path: Path, kit: Kit, vcpus: int) -> None:
    assert write_control(tmp_path, kit, "key", vcpus=vcpus, share=0.2, seed=1) is None
    assert not list(tmp_path.iterdir())


def test_the_control_block_holds_the_spans_and_leaves_one_vcpu_running(tmp_path: Path) -> None:
    kit = Kit(library=Path("/stall.so"), targets={"key": TARGETS})
    made = write_control(tmp_path, kit, "key", vcpus=4, share=0.2, seed=1)
    assert made is not None
    assert made.library == Path("/stall.so")
    with Block(made.control) as shared:
        assert (shared.ranges, shared.vcpus) == (3, 4)
    assert int.from_bytes(made.control.read_bytes()[24:28], "little") == 3


def test_a_plugin_that_was_not_loaded_is_said_and_nothing_is_switched_on(tmp_path: Path) -> None:
    kit = Kit(library=Path("/stall.so"), targets={"key": TARGETS})
    made = write_control(tmp_path, kit, "key", vcpus=4, share=0.2, seed=1)
    assert made is not None
    before = made.control.read_bytes()
    with Stalls(made.control, TARGETS, episodes(1, KINDS, **LIMITS), 4) as stalls:
        pass
    assert "QEMU has not loaded the plugin" in stalls.report.note
    assert stalls.report.stalls == 0
    assert made.control.read_bytes() == before
