"""What benches measured of patches/: recorded once for each series, and the tables are those of the record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from madebench import made

from rig.costs import record
from rig.costs.metrics import NULL, Bench
from rig.errors import ConfigError
from rig.runs import results
from rig.trees import series

ROOT = Path(__file__).parents[2]
SERIES = "fault-around-cleanups"


def kept(tmp_path: Path, done: Bench, name: str = "run") -> Path:
    place = tmp_path / name
    place.mkdir()
    (place / "bench.json").write_text(json.dumps(results.to_json(replace(done, id=name))))
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one series and a README."""
    patches = tmp_path / "project/patches"
    (patches / SERIES).mkdir(parents=True)
    for patch in (ROOT / "patches" / SERIES).glob("*.patch"):
        (patches / SERIES / patch.name).write_bytes(patch.read_bytes())
    (patches / "README.md").write_text(f"before\n{record.BEGIN}\nold\n{record.END}\nafter\n")
    return patches.parent


def measured(root: Path, *, atomics: float = 4.0) -> Bench:
    done = made(SERIES, atomics=atomics)
    key = series.read(str(root / "patches" / SERIES)).key
    return replace(done, subjects=tuple(replace(one, key=key if one.name != NULL else "") for one in done.subjects))


def test_the_record_in_patches_is_true() -> None:
    assert record.complaint(ROOT) == ""


def test_a_bench_is_recorded_and_rendered(root: Path, tmp_path: Path) -> None:
    whole = record.record(root, [kept(tmp_path, measured(root))])
    assert record.read(root) == whole
    assert whole.benches[0].samples == ()
    text = (root / "patches/README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert f"| `{SERIES}` | 4 | **6.02 → 4.02** |" in text
    assert f"| `{NULL}` | 4 | 6.02 |" in text
    assert "2.00 fewer atomics per page" in text
    assert "0 claims in" in text
    assert "f +10" in text
    assert record.complaint(root) == ""


def test_a_later_bench_takes_the_place_of_an_earlier_one(root: Path, tmp_path: Path) -> None:
    record.record(root, [kept(tmp_path, measured(root), "one")])
    whole = record.record(root, [kept(tmp_path, measured(root, atomics=5.0), "two")])
    assert [one.id for one in whole.benches] == ["two"]
    assert "6.02 → 5.02" in (root / "patches/README.md").read_text()


def test_counts_and_times_may_come_from_two_benches(root: Path, tmp_path: Path) -> None:
    both = measured(root)
    counts, times = (
        replace(both, samples=(), comparisons=tuple(one for one in both.comparisons if (one.metric == "rate") is timed))
        for timed in (False, True)
    )
    whole = record.record(root, [kept(tmp_path, counts, "counts"), kept(tmp_path, times, "times")])
    assert [one.id for one in whole.benches] == ["counts", "times"]
    assert len(record.of_subject(whole, SERIES).comparisons) == len(both.comparisons) / 2
    text = (root / "patches/README.md").read_text()
    assert "6.02 → 4.02" in text
    assert "+19 %" in text


def test_a_null_control_that_ran_alone_stays(root: Path, tmp_path: Path) -> None:
    done = measured(root)
    alone = replace(
        done,
        samples=(),
        subjects=tuple(one for one in done.subjects if one.name == NULL),
        comparisons=tuple(one for one in done.comparisons if one.subject == NULL),
    )
    record.record(root, [kept(tmp_path, alone, "null")])
    whole = record.record(root, [kept(tmp_path, done, "both")])
    assert [one.id for one in whole.benches] == ["null", "both"]
    assert "0 claims in 6 comparisons" in (root / "patches/README.md").read_text()


def test_what_is_recorded_of_other_patches_is_dropped(root: Path, tmp_path: Path) -> None:
    place = kept(tmp_path, measured(root))
    record.record(root, [place])
    patch = next((root / "patches" / SERIES).glob("0001*"))
    patch.write_bytes(patch.read_bytes().replace(b"one place", b"1 place"))
    assert "measured other patches" in record.complaint(root)
    assert record.record(root, []).benches == ()


def test_a_table_that_was_written_by_hand_is_noticed(root: Path, tmp_path: Path) -> None:
    record.record(root, [kept(tmp_path, measured(root))])
    readme = root / "patches/README.md"
    readme.write_text(readme.read_text().replace("6.02", "6.01"))
    assert "its table is not that" in record.complaint(root)


def test_what_nobody_measured_has_no_column(root: Path, tmp_path: Path) -> None:
    record.record(root, [kept(tmp_path, measured(root))])
    (head,) = [line for line in (root / "patches/README.md").read_text().splitlines() if line.startswith("| series")]
    assert "excess faults |" in head
    assert "skipped pages" not in head
    assert "99th percentile" not in head


def test_a_bench_of_the_version_before_is_read_and_one_of_the_next_is_refused(tmp_path: Path) -> None:
    older = replace(made(), schema_version=1, samples=tuple(replace(one, latencies=()) for one in made().samples))
    data = results.to_json(older)
    for one in data["samples"]:
        del one["latencies"]
    (tmp_path / "bench.json").write_text(json.dumps(data))
    assert record.read_bench(tmp_path).samples == older.samples
    (tmp_path / "bench.json").write_text(json.dumps({**data, "schema_version": 3}))
    with pytest.raises(ConfigError, match="schema version 3"):
        record.read_bench(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_what_is_no_bench_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(ConfigError, match="is no bench"):
        record.read_bench(tmp_path)


def test_a_readme_without_markers_is_refused(root: Path) -> None:
    (root / "patches/README.md").write_text("nothing")
    with pytest.raises(ConfigError, match="expected a line"):
        record.record(root, [])
