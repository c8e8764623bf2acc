"""Records of the same hunts with different means, and the tables made from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.detection import arms
from rig.detection.arms import Arm, Entry, Record
from rig.detection.outcomes import Cleared, Hunt, Outcome, Sighting, fold
from rig.errors import HostError
from rig.records.subjects import Subject
from rig.runs import results

NONE, BOTH = Arm(name="none", overrides=("a=1",)), Arm(name="both", overrides=("a=2",))


def sighting(signature: str) -> Sighting:
    return Sighting(oracle="console", title=f"T {signature}", signature=signature, cell="c", seed=1, evidence="e")


def hunt(outcome: Outcome, seconds: float, *others: str) -> Hunt:
    return Hunt(
        seed=1, outcome=outcome, seconds=seconds, trials=1, lost=0, inconclusive=0,
        found=sighting("x") if outcome is Outcome.CAUGHT else None, others=tuple(map(sighting, others)),
    )  # fmt: skip


def entry(arm: str, name: str, *hunts: Hunt, key: str = "k") -> Entry:
    return Entry(arm=arm, name=name, key=key, words=("w",), check="c", hunted=fold(name, key, "none", "wrong", hunts))


CAUGHT = hunt(Outcome.CAUGHT, 4.0)
MISSED = hunt(Outcome.MISSED, 120.0)
NOISY = hunt(Outcome.OTHERWISE, 120.0, "noise")


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert arms.read(path) == Record()
    record = arms.add(arms.add(Record(), entry("none", "a", CAUGHT)), entry("both", "a", MISSED))
    path.write_text(json.dumps(results.to_json(record)))
    assert arms.read(path) == record
    path.write_text("[]")
    with pytest.raises(HostError, match="cannot be read as a record"):
        arms.read(path)


def test_a_newer_entry_takes_the_place_of_the_older() -> None:
    record = arms.add(arms.add(Record(), entry("none", "a", CAUGHT)), entry("none", "a", MISSED))
    (left,) = record.entries
    assert left.hunted is not None
    assert left.hunted.outcome is Outcome.MISSED


def test_trials_of_the_base_stand_beside_those_with_other_words() -> None:
    clear = Cleared(name="base", key="", trials=1, lost=0, inconclusive=0, alarms=())
    bases = [
        Entry(arm="none", name="base", key="", words=words, check=check, cleared=clear)
        for words, check in ((("seed=1",), "old"), (("seed=2",), "other"), (("seed=1",), "new"))
    ]
    record = Record()
    for base in bases:
        record = arms.add(record, base)
    assert [one.check for one in record.entries] == ["other", "new"]


def test_what_is_known_is_known_for_these_patches_and_words_only() -> None:
    record = Record(entries=(entry("none", "base", key=""),))
    assert arms.known(record, NONE, None, ("w",))
    assert not arms.known(record, BOTH, None, ("w",))
    assert not arms.known(record, NONE, None, ("w", "limit=5"))
    other = Subject(name="base", origins=(), key="changed", patches=1)
    assert not arms.known(record, NONE, other, ("w",))


def test_the_table_has_medians_and_misses() -> None:
    record = Record(
        entries=(entry("none", "a", CAUGHT, hunt(Outcome.CAUGHT, 6.0), MISSED), entry("both", "a", MISSED, MISSED))
    )
    assert arms.table(record, (NONE, BOTH)).splitlines() == [
        "| control | none | both |",
        "| --- | --- | --- |",
        "| a | 6.0 s (2/3) | - (0/2) |",
        "| caught | 1/1, median 6.0 s | 0/1 |",
    ]


def test_what_an_arm_finds_on_the_base_is_no_catch() -> None:
    base = Entry(
        arm="none", name="base", key="", words=(), check="c",
        cleared=Cleared(name="base", key="", trials=3, lost=0, inconclusive=0, alarms=(sighting("noise"),)),
    )  # fmt: skip
    noisy = entry("none", "a", NOISY)
    assert arms.hunts(Record(entries=(noisy,)), "none")["a"].outcome is Outcome.OTHERWISE
    assert arms.hunts(Record(entries=(base, noisy)), "none")["a"].outcome is Outcome.MISSED


def test_bars_do_not_break_a_table() -> None:
    assert arms.markdown(["a|b"], []).splitlines()[0] == "| a\\|b |"
