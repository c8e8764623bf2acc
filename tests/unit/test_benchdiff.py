"""Two benches side by side: what a series does to its base, before and now, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from madebench import CASE, WHERE, made, sample

from rig.comparison import compare as comparison
from rig.comparison.changes import Change
from rig.costs.contrast import SCHEMA, Contrast, Row, contrast
from rig.costs.contrastwords import text
from rig.costs.metrics import BASE, NULL, Bench, Kind, Sample, Subject, Trouble, Where, compare
from rig.errors import ConfigError
from rig.runs import results


def bench(*samples: Sample, names: tuple[str, ...] = ("s",), level: float = 0.99, **changes: Any) -> Bench:
    """A bench of these samples, judged as `rig bench` does."""
    return replace(
        made(null=False),
        subjects=tuple(Subject(name=name, key=name, patches=1) for name in names),
        samples=samples,
        comparisons=tuple(one for name in names for one in compare(samples, name, level)),
        level=level,
        **changes,
    )


def counts(base: float, series: float, *, number: int = 5, where: Where = WHERE, name: str = "s") -> list[Sample]:
    found = [(BASE, base + n / 1000) for n in range(number)] + [(name, series + n / 1000) for n in range(number)]
    return [replace(sample(who, n % number, atomics=value), where=where) for n, (who, value) in enumerate(found)]


def times(base: float, series: float, *, number: int = 8, drift: float = 1.0) -> list[Sample]:
    noise = random.Random(1)
    found = []
    for n in range(number):
        slow = drift * noise.uniform(0.5, 2)  # the host: the same for both of a pair
        found += [sample(BASE, n, Kind.TIMED, rate=base * slow), sample("s", n, Kind.TIMED, rate=series * slow + n / 9)]
    return found


def row(made_of: Contrast, metric: str, subject: str = "s") -> Row:
    (found,) = [one for one in made_of.rows if (one.compared.metric, one.compared.subject) == (metric, subject)]
    return found


def test_the_same_bench_twice_has_nothing_to_say() -> None:
    compared = contrast(made(), made())
    assert not compared.worse
    assert {one.change for one in compared.rows} == {Change.SAME}
    assert (compared.only_a, compared.only_b, compared.left_out, compared.differences) == ((), (), (), ())
    assert text(compared).startswith("NOTHING WORSE: ")


@pytest.mark.parametrize(
    ("before", "now", "change", "counted"),
    [
        (6.0, 8.0, Change.NEW, True),  # it did not cost anything before
        (8.0, 9.0, Change.WORSE, True),
        (4.0, 6.0, Change.WORSE, True),  # what it bought is gone, and that is no cost over the base
        (8.0, 6.0, Change.GONE, False),
        (6.0, 4.0, Change.BETTER, False),
        (9.0, 8.0, Change.BETTER, False),
        (6.0, 6.2, Change.WORSE, False),  # below the threshold
        (6.0, 6.0, Change.SAME, False),
    ],
)
def test_a_count_of_a_series(before: float, now: float, change: Change, counted: bool) -> None:
    compared = contrast(bench(*counts(6.0, before)), bench(*counts(6.0, now)))
    found = row(compared, "atomics")
    assert (found.change, found.counts, compared.worse) == (change, counted, counted)
    assert (found.a.base, found.a.series) == pytest.approx((6.002, before + 0.002))
    assert (found.b.base, found.b.series) == pytest.approx((6.002, now + 0.002))
    assert found.compared.difference.change == pytest.approx(now / before - 1, abs=1e-3)


def test_a_base_that_moved_is_told_apart_from_the_series() -> None:
    compared = contrast(bench(*counts(6.0, 8.0)), bench(*counts(9.0, 12.0), base="debian (6.13)"))
    assert row(compared, "atomics").change is Change.SAME
    own = row(compared, "atomics", BASE)
    assert (own.change, own.counts, compared.worse) == (Change.WORSE, True, True)
    assert ("base", "debian (6.12)", "debian (6.13)") in [(one.what, one.a, one.b) for one in compared.differences]


def test_a_share_is_compared_by_its_difference() -> None:
    a = [sample(who, n, excess=0.02 + n / 1e4) for who in (BASE, "s") for n in range(5)]
    b = [*a[:5], *(sample("s", n, excess=0.42 + n / 1e4) for n in range(5))]
    found = row(contrast(bench(*a), bench(*b)), "excess")
    assert (found.change, found.counts) == (Change.NEW, True)
    assert found.compared.difference.change == pytest.approx(0.4)


def test_times_are_compared_within_their_pairs() -> None:
    same = contrast(bench(*times(100, 120)), bench(*times(100, 120, drift=0.1)))  # a slower host
    assert row(same, "rate").change is Change.SAME
    assert not same.worse
    slower = contrast(bench(*times(100, 120)), bench(*times(100, 90)))
    assert (row(slower, "rate").change, slower.worse) == (Change.NEW, True)
    assert not any(one.compared.subject == BASE for one in slower.rows)  # nothing to compare a host's speed with


def test_too_few_trials_claim_nothing_and_say_so() -> None:
    compared = contrast(
        bench(*counts(6, 6, number=2), *times(100, 120, number=3)),
        bench(*counts(6, 9, number=3), *times(100, 50, number=3)),
    )
    assert not compared.worse
    assert {one.change for one in compared.rows} == {Change.SAME}
    first, second = compared.notes
    assert first == "no change of a count can be claimed with 2 and 3 trials: at 99 % it takes counted=5"
    assert second == "no change of a time can be claimed with 3 pairs: at 99 % it takes pairs=8"
    enough = contrast(bench(*counts(6, 6)), bench(*counts(6, 9)))
    assert enough.notes == ()


def test_other_sizes_are_left_out_and_named() -> None:
    other = replace(WHERE, cpus=8)
    case = replace(WHERE, case="exec")
    a = bench(*counts(6, 6), *counts(6, 6, where=other), *counts(6, 6, name="t"), names=("s", "t"))
    b = bench(*counts(6, 8), *counts(6, 9, where=case), *times(100, 100))
    compared = contrast(a, b)
    assert {one.compared.where for one in compared.rows} == {WHERE}
    assert compared.only_a == ("series t", "8 vCPUs")
    assert compared.only_b == ("times", "case exec")
    assert row(compared, "atomics").change is Change.NEW
    assert "  only in A: 8 vCPUs" in text(compared)
    corner = contrast(
        bench(*counts(6, 6), *counts(6, 6, where=other), *counts(6, 6, where=case)),
        bench(*counts(6, 6), *counts(6, 6, where=other), *counts(6, 6, where=replace(case, cpus=8))),
    )
    assert corner.only_a == (f"atomics per page in {case.id}",)


def test_another_amount_of_work_is_not_compared_at_all() -> None:
    a = bench(*counts(6, 6), config={"bench": {"faults": 1000}})
    b = bench(*counts(6, 9), config={"bench": {"faults": 4000}})
    compared = contrast(a, b)
    assert (compared.rows, compared.worse) == ((), False)
    assert compared.left_out == ("counts and times: a case is 1000 faults in A, and 4000 in B (faults=N)",)
    assert text(compared).startswith("NOT COMPARED: Nothing was compared")
    assert compared.sentence.startswith("Nothing was compared")


def test_times_of_another_accelerator_are_left_out_and_counts_are_not() -> None:
    a, b = bench(*counts(6, 6), *times(100, 100)), bench(*counts(6, 9), *times(100, 10), accelerator="kvm")
    compared = contrast(a, b)
    assert {one.compared.metric for one in compared.rows} == {"atomics"}
    assert compared.left_out == ("times: A ran under TCG, and B under KVM",)
    assert [one.what for one in compared.differences] == ["accelerator"]


def test_two_versions_under_two_names_are_one_series_if_each_is_alone() -> None:
    compared = contrast(bench(*counts(6, 6)), bench(*counts(6, 9, name="s-v2"), names=("s-v2",)))
    found = row(compared, "atomics", "s-v2")
    assert (found.was, found.change) == ("s", Change.NEW)
    assert "| s → s-v2 |" in text(compared)
    many = contrast(
        bench(*counts(6, 6), *counts(6, 6, name="t"), names=("s", "t")),
        bench(*counts(6, 6, name="u"), *counts(6, 6, name="v"), names=("u", "v")),
    )
    assert contrast(made(), made(null=False)).only_a == ("the null control",)
    assert (many.only_a, many.only_b) == (("series s", "series t"), ("series u", "series v"))


def test_the_same_patches_under_another_name_are_the_same_series() -> None:
    a = bench(*counts(6, 6), *counts(6, 6, name="t"), names=("s", "t"))
    b = bench(*counts(6, 6, name="x"), *counts(6, 6, name="t"), names=("x", "t"))
    b = replace(b, subjects=(replace(b.subjects[0], key="s"), b.subjects[1]))
    compared = contrast(a, b)
    assert {(one.was, one.compared.subject) for one in compared.rows} == {(BASE, BASE), ("s", "x"), ("t", "t")}


def test_a_kernel_that_breaks_down_now_is_worse() -> None:
    trouble = Trouble(subject="s", cell="c", kind=Kind.TIMED, status="CRASH", reason="boom", evidence="times/s/0")
    b = bench(*counts(6, 6), troubles=(trouble, replace(trouble, evidence="times/s/1")))
    compared = contrast(bench(*counts(6, 6)), b)
    assert compared.worse
    assert compared.sentence == "s ends with CRASH in c, as it did not before (boom)."
    assert len(compared.broken) == 1
    assert "broken: s CRASH c: boom (times/s/0)" in text(compared)
    assert not contrast(b, b).worse
    lost = replace(b, troubles=(replace(trouble, status="LOST"),))
    assert not contrast(bench(*counts(6, 6)), lost).worse


def test_the_stricter_level_and_the_later_threshold_are_taken() -> None:
    a, b = bench(*counts(6, 6)), bench(*counts(6, 7), level=0.6, threshold=0.5)
    compared = contrast(a, b)
    assert (compared.level, compared.threshold, compared.worse) == (0.99, 0.5, False)
    assert {one.what for one in compared.differences} == {"level", "threshold"}


def test_null_controls_are_compared_and_count_for_nobody() -> None:
    a, b = made(), made()
    moved = tuple(
        replace(one, values=(("atomics", 9.0 + one.index / 100),))
        if one.subject == NULL and one.kind == "counts"
        else one
        for one in b.samples
    )
    compared = contrast(a, replace(b, samples=moved))
    assert row(compared, "atomics", NULL).change is not Change.SAME
    assert not compared.worse
    assert "null control, counts: 1 claims in" in text(compared)


def test_benches_of_equal_kernels_rarely_differ() -> None:
    draw = random.Random(3)
    claims = 0
    for _ in range(400):
        some = [
            bench(*(sample(who, n, atomics=draw.gauss(6, 0.1)) for who in (BASE, "s") for n in range(5)))
            for _ in range(2)
        ]
        claims += row(contrast(*some), "atomics").change is not Change.SAME
    assert claims <= 12  # nominal 0.8 %: 3.2 expected; above 12 with a chance of 2e-5


def test_the_words_name_the_worst_first_and_the_table_is_markdown() -> None:
    b = bench(*counts(6, 9), *times(100, 50))
    compared = contrast(bench(*counts(6, 6), *times(100, 100)), b)
    lines = text(compared).splitlines()
    assert lines[0].startswith("WORSE: s: ")
    assert lines[0].endswith("became worse by more than 5 %, and 1 more.")
    table = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    (mine,) = [line for line in table if "atomics per page" in line]
    assert "| 6.00 → 6.00" in mine
    assert "| 6.00 → 9.00" in mine
    assert "| **+50 % [+50 %, +50 %]**" in mine
    assert f"release/cpus4/tmpfs/{CASE}" in mine
    assert "weak evidence" in lines[-1]
    same = text(contrast(b, b))
    assert "|" not in same


# -- files ------------------------------------------------------------------------------------------------------------


def kept(place: Path, done: Bench) -> str:
    place.mkdir()
    (place / "bench.json").write_text(json.dumps(results.to_json(done)))
    return str(place)


def test_the_exit_code_says_whether_something_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = kept(tmp_path / "a", made()), kept(tmp_path / "b", made(atomics=7.0))
    assert comparison.run([a, b], as_json=False) == 1
    assert capsys.readouterr().out.startswith("WORSE: ")
    assert comparison.run([b, a], as_json=False) == 0
    other = kept(tmp_path / "c", replace(made(), config={"bench": {"faults": 1}}))
    assert comparison.run([a, other], as_json=False) == 4
    capsys.readouterr()
    renamed = tmp_path / "yesterday.json"
    renamed.write_bytes((tmp_path / "a/bench.json").read_bytes())
    assert comparison.run([str(renamed), f"{b}/bench.json"], as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema()).validate(told)
    assert told["worse"] is True


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[: len(text) // 2], "is no bench, or was cut off"),
        (lambda text: text.replace('"schema_version": 2', '"schema_version": 7, "more": 1'), "is of schema version 7"),
        (lambda text: text.replace('"atomics", ', '"prayers", '), "unknown metric 'prayers'"),
        (lambda text: text.replace('"rate", 100.0', '"rate", -1'), "is no time"),
        (lambda text: text.replace('"rate", 100.0', '"rate", NaN'), "NaN is no number"),
        (lambda text: "\udc80", "is no bench"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, damage: Any, says: str) -> None:
    good = kept(tmp_path / "good", made())
    bad = Path(kept(tmp_path / "bad", made())) / "bench.json"
    bad.write_bytes(damage(bad.read_text()).encode(errors="surrogateescape"))
    for words in ((good, str(bad.parent)), (str(bad), good)):
        with pytest.raises(ConfigError, match=says):
            comparison.run(words, as_json=False)


def schema() -> Any:
    return json.loads(SCHEMA.read_text())


def test_the_schema_names_every_field() -> None:
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    for kind, place in ((Contrast, described), (Row, described["$defs"]["Row"])):
        names = {field.name for field in dataclasses.fields(kind)}
        assert place["properties"].keys() == set(place["required"]) == names
