"""Two benches side by side: yesterday's and today's, or two versions of a series. Pure: two benches in, a Contrast out.

What is compared is what a series does to its own base: the ratio of the two kernels (of a share: their difference) in
each pair of trials with the same seed, first bench against second. A host that was slower yesterday slowed both kernels
down, and a base that has changed has changed below both. Claims are those of `rig bench`: ranges of counts that do not
overlap, and for times an interval and signs that agree, over the seeds that both benches have. The bases' own counts
are compared as they are; where both benches have the null control, it says how often that claims what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.comparison.changes import Change
from rig.comparison.changes import Difference as Surroundings
from rig.costs.differences import (
    Difference,
    Spread,
    apart_by_luck,
    counted,
    fewest_counted,
    fewest_pairs,
    spread,
    timed,
)
from rig.costs.metrics import BASE, BY_NAME, NULL, Bench, Comparison, Kind, Where, regressions

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parents[1] / "schemas" / "benchdiff.schema.json"
BROKEN = ("FAIL", "CRASH", "TIMEOUT")
#: The order in which rows are told.
ORDER = (Change.NEW, Change.WORSE, Change.GONE, Change.BETTER, Change.SAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One of the two benches."""

    id: str
    started: str
    base: str
    against: str
    accelerator: str
    subjects: tuple[str, ...]
    counted: int
    timed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Medians of one bench, in units of the metric."""

    base: float
    series: float  # of a row of the base: the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one case of a series in both benches, or of the base."""

    compared: Comparison  # `first` and `second` are what the series did to its base in each bench
    was: str  # the name of the series in the first bench
    change: Change  # new: a cost that the first bench did not find; gone: one that the second does not
    counts: bool  # worse by more than the threshold
    a: Levels
    b: Levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A trial of the second bench that broke down on a kernel and a cell on which none of the first did so."""

    subject: str
    cell: str
    status: str
    reason: str
    evidence: str  # folder, relative to the bench's


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What two benches have to say about each other."""

    a: Named
    b: Named
    worse: bool
    sentence: str
    level: float
    threshold: float
    rows: tuple[Row, ...]
    broken: tuple[Broken, ...]
    only_a: tuple[str, ...]  # what was not compared, as one bench alone has it
    only_b: tuple[str, ...]
    left_out: tuple[str, ...]  # what was not compared, though both have it, and why
    differences: tuple[Surroundings, ...]
    notes: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION


Key = tuple[Kind, Where, str]  # kind, where, metric
Values = Mapping[Key, Mapping[int, float]]  # by the index of the trial


def contrast(a: Bench, b: Bench) -> Contrast:
    """Return what changed from bench `a` to bench `b`, at the stricter level and the threshold of the second one."""
    level, threshold = max(a.level, b.level), b.threshold
    unlike = _unlike(a, b)
    values = [_values(bench, {kind for kind in Kind if kind not in unlike}) for bench in (a, b)]
    rows: list[Row] = []
    for was, name in _pairs(a, b):
        mine = [_done_to_base(some, subject) for some, subject in zip(values, (was, name), strict=True)]
        rows += _rows(was, name, mine, values, level, (regressions(a), regressions(b)), threshold)
    rows.sort(key=lambda row: (ORDER.index(row.change), not row.counts, -abs(row.compared.difference.change)))
    broken = tuple(_broken(a, b))
    only = [_alone(values[n], values[1 - n], mine, other) for n, (mine, other) in enumerate(((a, b), (b, a)))]
    return Contrast(
        a=_named(a),
        b=_named(b),
        worse=bool(broken) or any(row.counts for row in rows),
        sentence=_sentence(rows, broken, threshold),
        level=level,
        threshold=threshold,
        rows=tuple(rows),
        broken=broken,
        only_a=only[0],
        only_b=only[1],
        left_out=tuple(
            f"{' and '.join(kind for kind in unlike if unlike[kind] == why)}: {why}"
            for why in dict.fromkeys(unlike.values())
        ),
        differences=tuple(_differences(a, b)),
        notes=tuple(_notes(rows, level)),
    )


def _named(bench: Bench) -> Named:
    return Named(
        id=bench.id,
        started=bench.started,
        base=bench.base,
        against=bench.against,
        accelerator=bench.accelerator,
        subjects=tuple(one.name for one in bench.subjects),
        counted=bench.counted,
        timed=bench.timed,
    )


# -- what is compared with what ---------------------------------------------------------------------------------------


def _unlike(a: Bench, b: Bench) -> dict[Kind, str]:
    """Return the kinds of which nothing can be compared, and why."""
    work = [(bench.config.get("bench") or {}).get("faults") for bench in (a, b)]
    if work[0] != work[1]:
        return dict.fromkeys(Kind, f"a case is {work[0]} faults in A, and {work[1]} in B (faults=N)")
    if a.accelerator != b.accelerator:
        words = [bench.accelerator.upper() for bench in (a, b)]
        return {Kind.TIMED: f"A ran under {words[0]}, and B under {words[1]}"}
    return {}


def _pairs(a: Bench, b: Bench) -> Iterator[tuple[str, str]]:
    """Yield the names of what is the same in both: the base, series of one name, series of the same patches.

    A series that is alone in each bench is two versions of one, whatever it is called.
    """
    yield BASE, BASE
    left = [[one for one in bench.subjects if one.name != NULL] for bench in (a, b)]
    alone = len(left[0]) == len(left[1]) == 1
    for name in ("name", "key"):
        for other in tuple(left[1]):
            for one in tuple(left[0]):
                if other in left[1] and (alone or getattr(one, name) == getattr(other, name)):
                    left[0].remove(one)
                    left[1].remove(other)
                    yield one.name, other.name
    if all(any(one.name == NULL for one in bench.subjects) for bench in (a, b)):
        yield NULL, NULL


def _values(bench: Bench, kinds: set[Kind]) -> dict[str, dict[Key, dict[int, float]]]:
    """Return what was measured, by subject."""
    found: dict[str, dict[Key, dict[int, float]]] = {}
    for one in bench.samples:
        if one.kind in kinds:
            for metric, value in one.values:
                found.setdefault(one.subject, {}).setdefault((one.kind, one.where, metric), {})[one.index] = value
    return found


def _done_to_base(values: Mapping[str, Values], subject: str) -> dict[Key, dict[int, float]]:
    """Return what a subject is to its base in each pair of trials: a ratio, or for a share the difference.

    Of the base itself: its counts, as they are.
    """
    base = values.get(BASE, {})
    if subject == BASE:
        return {key: dict(some) for key, some in base.items() if key[0] is Kind.COUNTED}
    found: dict[Key, dict[int, float]] = {}
    for key, some in values.get(subject, {}).items():
        ground = base.get(key, {})
        relative = BY_NAME[key[2]].relative
        pairs = {n: (some[n], ground[n]) for n in some.keys() & ground.keys() if ground[n] or not relative}
        if pairs:
            found[key] = {n: mine / its if relative else mine - its for n, (mine, its) in sorted(pairs.items())}
    return found


def _rows(
    was: str,
    name: str,
    mine: Sequence[Values],
    values: Sequence[Mapping[str, Values]],
    level: float,
    costs: Sequence[Sequence[Comparison]],
    threshold: float,
) -> Iterator[Row]:
    known = [{(one.subject, one.metric, one.where) for one in some} for some in costs]
    for key in (key for key in mine[0] if key in mine[1]):
        kind, where, metric = key
        difference = _difference(kind, metric, mine[0][key], mine[1][key], level)
        if difference is None:
            continue
        compared = Comparison(subject=name, metric=metric, where=where, difference=difference)
        cost = (was, metric, where) in known[0], (name, metric, where) in known[1]
        change = _change(compared, *cost)
        yield Row(
            compared=compared,
            was=was,
            change=change,
            counts=name != NULL and change in (Change.NEW, Change.WORSE) and abs(difference.change) > threshold,
            a=_levels(values[0], was, key),
            b=_levels(values[1], name, key),
        )


def _difference(
    kind: Kind, metric: str, first: Mapping[int, float], second: Mapping[int, float], level: float
) -> Difference | None:
    if kind is Kind.COUNTED:
        relative = BY_NAME[metric].relative
        return counted(list(first.values()), list(second.values()), relative=relative, level=level)
    shared = sorted(first.keys() & second.keys())
    return timed([first[n] for n in shared], [second[n] for n in shared], level=level) if shared else None


def _change(compared: Comparison, was_cost: bool, is_cost: bool) -> Change:
    if compared.better is None:
        return Change.SAME
    if compared.better:
        return Change.GONE if was_cost and not is_cost else Change.BETTER
    return Change.NEW if is_cost and not was_cost else Change.WORSE


def _levels(values: Mapping[str, Values], subject: str, key: Key) -> Levels:
    middle = [spread(list(values[one][key].values())).median for one in (BASE, subject)]
    return Levels(base=middle[0], series=middle[1])


def _broken(a: Bench, b: Bench) -> Iterator[Broken]:
    """Yield the first trial that broke down of each kernel and cell of the second bench of which none did in the first.

    Null control and base count as well: it is a kernel that broke down.
    """
    names = {name: was for was, name in _pairs(a, b)}
    known = {(one.subject, one.cell) for one in a.troubles if one.status in BROKEN}
    for one in b.troubles:
        place = names.get(one.subject, one.subject), one.cell
        if one.status in BROKEN and place not in known:
            known.add(place)
            yield Broken(
                subject=one.subject, cell=one.cell, status=one.status, reason=one.reason, evidence=one.evidence
            )


# -- what is not compared ---------------------------------------------------------------------------------------------


def _alone(mine: Mapping[str, Values], others: Mapping[str, Values], bench: Bench, other: Bench) -> tuple[str, ...]:
    """Return what one bench has alone, in few words: whole series, sizes, file systems, cases and metrics."""
    reverse = dict(_pairs(bench, other))
    names = [one.name for one in bench.subjects if one.name not in reverse]
    words = ["the null control" if name == NULL else f"series {name}" for name in names]
    keys, theirs = (list(dict.fromkeys(key for some in both.values() for key in some)) for both in (mine, others))
    left = [key for key in keys if key not in set(theirs)]
    parts: tuple[tuple[Callable[[Key], object], Callable[[Any], str]], ...] = (
        (lambda key: key[0], str),
        (lambda key: key[1].flavour, lambda flavour: f"flavour {flavour}"),
        (lambda key: key[1].cpus, lambda cpus: f"{cpus} vCPU{'s' * (cpus != 1)}"),
        (lambda key: key[1].filesystem, str),
        (lambda key: key[1].case, lambda case: f"case {case}"),
        (lambda key: key[2], lambda metric: BY_NAME[metric].title),
    )
    for part, say in parts:
        both = {part(key) for key in theirs}
        words += [say(one) for one in dict.fromkeys(part(key) for key in left) if one not in both]
        left = [key for key in left if part(key) in both]
    return (*words, *(f"{BY_NAME[metric].title} in {where.id}" for _, where, metric in left))


# -- surroundings -----------------------------------------------------------------------------------------------------


def _differences(a: Bench, b: Bench) -> Iterator[Surroundings]:
    """Yield what was different around the two benches, with what that means for the comparison."""
    facts: tuple[tuple[str, Callable[[Bench], object], str], ...] = (
        ("accelerator", lambda one: one.accelerator, "what one counts and times is not what the other does"),
        ("base", lambda one: one.base, "a series may do something else to another base"),
        ("against", lambda one: one.against or "the base", "each is compared with what it was benched against"),
        ("flavours", lambda one: _flavours(one.config), "another configuration does other work"),
        ("seed", lambda one: one.config.get("seed", "?"), "other seeds fault on other pages"),
        ("CPUs of the host", lambda one: one.host_cpus, "vCPUs that share a core wait for each other"),
        ("level", lambda one: f"{one.level:g}", "the stricter one is taken"),
        ("threshold", lambda one: f"{one.threshold:g}", "that of B is taken"),
        ("rig", lambda one: one.rig_version, "its workload and what it counts may have changed"),
    )
    for what, fact, why in facts:
        mine, theirs = str(fact(a)), str(fact(b))
        if mine != theirs:
            yield Surroundings(what=what, a=mine, b=theirs, why=why)


def _flavours(config: Mapping[str, Any]) -> str:
    known = config.get("flavours")
    if not isinstance(known, Mapping):
        return "?"
    return ", ".join(f"{name} {' '.join(map(str, parts))}" for name, parts in sorted(known.items()))


def _notes(rows: Sequence[Row], level: float) -> Iterator[str]:
    """Yield what cannot be claimed with so few trials."""
    sizes = {kind: list(_sizes(rows, kind)) for kind in Kind}
    if sizes[Kind.COUNTED] and all(apart_by_luck(x.count, y.count) > 1 - level for x, y in sizes[Kind.COUNTED]):
        x, y = max(sizes[Kind.COUNTED], key=lambda pair: pair[0].count + pair[1].count)
        need = fewest_counted(level)
        yield (
            f"no change of a count can be claimed with {x.count} and {y.count} trials: "
            f"at {100 * level:g} % it takes counted={need}"
        )
    need = fewest_pairs(level)
    if sizes[Kind.TIMED] and all(x.count < need for x, _ in sizes[Kind.TIMED]):
        most = max(x.count for x, _ in sizes[Kind.TIMED])
        yield f"no change of a time can be claimed with {most} pairs: at {100 * level:g} % it takes pairs={need}"


def _sizes(rows: Sequence[Row], kind: Kind) -> Iterator[tuple[Spread, Spread]]:
    return (
        (row.compared.difference.first, row.compared.difference.second)
        for row in rows
        if BY_NAME[row.compared.metric].kind is kind
    )


def _sentence(rows: Sequence[Row], broken: Sequence[Broken], threshold: float) -> str:
    counted_rows = [row for row in rows if row.counts]
    if broken:
        one = broken[0]
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        costs = f"; {len(counted_rows)} counts or times are worse" if counted_rows else ""
        return f"{one.subject} ends with {one.status} in {one.cell}, as it did not before ({one.reason}){more}{costs}."
    if counted_rows:
        first = counted_rows[0].compared
        more = f", and {len(counted_rows) - 1} more" if len(counted_rows) > 1 else ""
        title = BY_NAME[first.metric].title
        return f"{first.subject}: {title} in {first.where.id} became worse by more than {100 * threshold:g} %{more}."
    if not rows:
        return "Nothing was compared: these two have nothing in common that was measured."
    told = {change: sum(row.change is change and row.compared.subject != NULL for row in rows) for change in ORDER}
    rest = ", ".join(f"{number} {change}" for change, number in told.items() if number)
    return f"Nothing became worse by more than {100 * threshold:g} % ({rest})."


def kinds_of(rows: Iterable[Row]) -> dict[Kind, tuple[int, int]]:
    """Return claims and comparisons among rows, for counts and for times."""
    found: dict[Kind, tuple[int, int]] = {}
    for row in rows:
        kind = BY_NAME[row.compared.metric].kind
        claims, number = found.get(kind, (0, 0))
        found[kind] = claims + (row.compared.better is not None), number + 1
    return found
