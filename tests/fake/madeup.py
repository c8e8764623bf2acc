"""Hand-made and hypothesis-made runs for the tests of verdict, results and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rig.model import (
    CaseResult,
    Cell,
    DirectedStalls,
    Excluded,
    Expected,
    Finding,
    FindingVerdict,
    FunctionStalls,
    GuestState,
    Interval,
    Judgement,
    Kernel,
    Perturbation,
    Sampling,
    Side,
    Status,
    Stopped,
    Tally,
    Timing,
    TrialResult,
    Verdict,
)
from rig.runs.results import Base, Host, Patch, Run, SeriesInfo
from rig.touches.touched import Function
from rig.verdicts.verdict import fold

BUG = Finding(
    oracle="console",
    kind="bug",
    title="kernel BUG in filemap_unaccount_folio",
    signature="bug:filemap_unaccount_folio",
    function="filemap_unaccount_folio",
    text="kernel BUG at mm/filemap.c:154!\nRIP: 0010:filemap_unaccount_folio+0x1d5/0x200",
    fatal=True,
)
STALE = Finding(
    oracle="workload", kind="data", title="stale data after hole punch", signature="data:stale", text="punch: page 3"
)
GUEST = GuestState(
    release="6.12.117",
    cpus=4,
    nodes=1,
    memory_kib=1 << 20,
    thp="always",
    shmem_thp="never",
    hugepages=8,
    hugepage_kib=2048,
    taint=0,
)


def cell(filesystem: str = "ext4", machine: str = "smp4", workload: str = "truncate-race") -> Cell:
    return Cell(flavour="debug", machine=machine, workload=workload, filesystem=filesystem)


def trial(
    side: Side = Side.PATCHED,
    status: Status = Status.PASS,
    *findings: Finding,
    where: Cell | None = None,
    index: int = 0,
    cases: tuple[CaseResult, ...] = (),
    reason: str = "",
    guest: GuestState | None = GUEST,
    prefix: int | None = None,
    coverage: tuple[tuple[str, int], ...] = (),
) -> TrialResult:
    where = where or cell()
    prefix = (0 if side is Side.BASE else 1) if prefix is None else prefix
    return TrialResult(
        cell=where,
        side=side,
        prefix=prefix,
        tree=f"{prefix:040x}",
        index=index,
        seed=1000 + index,
        status=status,
        reason=reason or (findings[0].title if findings else str(status).lower()),
        accelerator="tcg",
        started="2026-01-02T03:04:05+00:00",
        evidence=f"trials/{side}/{where.id.replace('/', '-')}-{index}",
        cases=cases,
        findings=findings,
        guest=guest,
        timing=Timing(boot=2.5, workload=10.0, total=14.0),
        coverage=coverage,
    )


def kernel(prefix: int = 1, flavour: str = "debug") -> Kernel:
    return Kernel(
        prefix=prefix,
        flavour=flavour,
        commit="c" * 40,
        tree=f"{prefix:040x}",
        config_hash="h",
        compiler="gcc",
        key=f"kernel-{prefix}",
        bzimage=Path("/home/me/.cache/rig/bzImage"),
        vmlinux=Path("/home/me/.cache/rig/vmlinux"),
        config=Path("/home/me/.cache/rig/config"),
        release="6.12.117",
        warnings=("mm/filemap.c: unused variable",) if prefix else (),
    )


def run(*trials: TrialResult, complete: bool = True) -> Run:
    return Run(
        id="20260102-030405",
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:14:05+00:00",
        rig_version="0.1.0",
        complete=complete,
        host=Host(
            kernel="6.1.0",
            cpus=2,
            memory_kib=1 << 22,
            accelerator="tcg",
            accelerator_reason="KVM did not boot anything in 10 s",
            qemu="7.2.9",
            compiler="gcc (Debian 12.2.0-14) 12.2.0",
        ),
        base=Base(source="debian:linux-source-6.12", commit="b" * 40, tree="0" * 40),
        series=SeriesInfo(
            name="fault-around-private",
            path="patches/fault-around-private",
            patches=(Patch(number=1, subject="mm: map private folios", commit="c" * 40, tree="1" * 40),),
        ),
        kernels=(),
        config={"trials": 2, "flavours": {"debug": ["base"]}},
        trials=trials,
        verdict=fold(trials),
        stages=(("apply", 1.5), ("build", 300.0), ("apply", 0.5)),
    )


# -- any run at all ---------------------------------------------------------------------------------------------------

texts = st.text(st.characters(), max_size=12)  # surrogates included: a guest prints what it likes
numbers = st.integers(0, 1 << 40)
seconds = st.floats(0, 1e6, allow_nan=False)


def pairs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(texts, values), max_size=3).map(tuple)


def many(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=2).map(tuple)


paths = st.sampled_from([Path("store/x"), Path("/a b/ü")])
findings = st.builds(
    Finding,
    oracle=texts,
    kind=texts,
    title=texts,
    signature=texts,
    function=st.none() | texts,
    text=texts,
    first_line=st.none() | numbers,
    last_line=st.none() | numbers,
    fatal=st.booleans(),
    echo=st.booleans(),
    corrupted=st.booleans(),
)
cases = st.builds(
    CaseResult,
    name=texts,
    status=st.sampled_from(Status),
    reason=texts,
    findings=many(findings),
    counters=pairs(st.integers()),
    seconds=seconds,
)
guests = st.builds(
    GuestState,
    release=texts,
    cpus=numbers,
    nodes=numbers,
    memory_kib=numbers,
    thp=texts,
    shmem_thp=texts,
    hugepages=numbers,
    hugepage_kib=numbers,
    taint=numbers,
)
names = st.sampled_from(["a", "b"])
cells = st.builds(Cell, flavour=names, machine=names, workload=names, filesystem=texts)
trials = st.builds(
    TrialResult,
    cell=cells,
    side=st.sampled_from(Side),
    prefix=st.integers(0, 3),
    tree=texts,
    index=st.integers(0, 5),
    seed=st.integers(0, (1 << 64) - 1),
    status=st.sampled_from(Status),
    reason=texts,
    accelerator=texts,
    started=texts,
    evidence=st.sampled_from(["trials/a", "trials/b c", "trials/\ud800"]),
    cases=many(cases),
    findings=many(findings),
    guest=st.none() | guests,
    timing=st.builds(Timing, boot=seconds, workload=seconds, total=seconds),
    params=pairs(texts),
    coverage=pairs(numbers),
    perturbation=st.none()
    | st.builds(
        Perturbation,
        kinds=many(texts),
        steps=numbers,
        stalled=seconds,
        note=texts,
        directed=st.none()
        | st.builds(
            DirectedStalls,
            means=texts,
            executed=numbers,
            stalls=numbers,
            stalled=seconds,
            withheld=numbers,
            functions=many(
                st.builds(FunctionStalls, function=texts, kind=texts, executed=numbers, stalls=numbers, stalled=seconds)
            ),
            note=texts,
        ),
    ),
)
shares = st.floats(0, 1)
intervals = st.none() | st.builds(Interval, low=shares, high=shares)
stops = st.sampled_from(Stopped)
tallies = st.builds(Tally, failures=st.integers(0, 9), trials=st.integers(0, 9))
verdicts = st.builds(
    Verdict,
    judgement=st.sampled_from(Judgement),
    sentence=texts,
    findings=many(
        st.builds(
            FindingVerdict,
            signature=texts,
            title=texts,
            judgement=st.sampled_from(Judgement),
            base=tallies,
            patched=tallies,
            p_value=shares,
            p_adjusted=st.none() | shares,
            test=st.sampled_from(["", "boschloo", "pairs"]),
            base_interval=intervals,
            patched_interval=intervals,
            expected=st.none() | st.builds(Expected, entry=texts, reason=texts, link=texts, expires=texts),
            stopped=st.none() | stops,
            cells=many(texts),
            example=texts,
            sentence=texts,
            kind=texts,
            base_there=tallies,
            patched_there=tallies,
        )
    ),
    notes=many(texts),
    confidence=shares,
    excluded_rate=st.none() | shares,
    excludes=many(st.builds(Excluded, cell=texts, trials=numbers, rate=shares)),
    sampling=st.none()
    | st.builds(
        Sampling,
        least=st.integers(1, 9),
        most=st.integers(1, 9),
        extended=pairs(numbers),
        stopped=stops,
        sentence=texts,
    ),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
runs = st.builds(
    Run,
    id=texts,
    started=texts,
    finished=texts,
    rig_version=texts,
    complete=st.booleans(),
    host=st.builds(
        Host,
        kernel=texts,
        cpus=numbers,
        memory_kib=numbers,
        accelerator=texts,
        accelerator_reason=texts,
        qemu=texts,
        compiler=texts,
    ),
    base=st.builds(Base, source=texts, commit=texts, tree=texts),
    series=st.builds(
        SeriesInfo,
        name=texts,
        path=texts,
        key=texts,
        patches=many(
            st.builds(
                Patch,
                number=st.integers(1, 9),
                subject=texts,
                commit=texts,
                tree=texts,
                functions=many(st.builds(Function, path=texts, name=texts)),
            )
        ),
    ),
    kernels=many(
        st.builds(
            Kernel,
            prefix=st.integers(0, 3),
            flavour=texts,
            commit=texts,
            tree=texts,
            config_hash=texts,
            compiler=texts,
            key=texts,
            bzimage=paths,
            vmlinux=paths,
            config=paths,
            release=texts,
        )
    ),
    config=st.dictionaries(texts, json_values, max_size=3),
    trials=st.lists(trials, max_size=4).map(tuple),
    verdict=verdicts,
    stages=pairs(seconds),
    overrides=many(texts),
    schema_version=st.sampled_from([1, 2]),
)
