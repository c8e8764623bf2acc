"""Words that all reports have in common."""

from __future__ import annotations

from rig.model import Judgement, Side, Status, Tally
from rig.runs.results import Run
from rig.verdicts.verdict import counts

ACCELERATORS = {
    "tcg": "TCG (emulated: weaker evidence on timing, none on memory ordering)",
    "kvm": "KVM",
}
#: How a cell's trials are counted in a table, the worst first.
SHORT = {
    Status.CRASH: "crash",
    Status.TIMEOUT: "hang",
    Status.FAIL: "fail",
    Status.LOST: "lost",
    Status.INCONCLUSIVE: "inconcl",
    Status.SKIP: "skip",
    Status.PASS: "pass",
}


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 patch` or `3 patches`; `many` defaults to `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listing(items: tuple[str, ...] | list[str], most: int) -> str:
    """Return the first `most` items with commas between, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def failed(run: Run) -> tuple[Tally, Tally]:
    """Return how many of the trials that count failed, in whatever way, on the base and on the patched kernel."""
    base, patched = (
        [trial.status.bad for trial in run.trials if trial.side is side and counts(trial)]
        for side in (Side.BASE, Side.PATCHED)
    )
    return Tally(failures=sum(base), trials=len(base)), Tally(failures=sum(patched), trials=len(patched))


def headline(run: Run) -> str:
    """Return the verdict in one sentence for somebody who has never heard of the rig."""
    base, patched = failed(run)
    name = f"the series “{run.series.name}”"
    ran = f"{patched.failures} of {count(patched.trials, 'test run')} failed"
    beside = f"{base.failures} of {base.trials} without it" if base.trials else "none was made without it to compare"
    return {
        Judgement.REGRESSION: f"The kernel breaks with {name}: {ran}, {beside}.",
        Judgement.FIXED: f"The kernel fails without {name} ({base.failures} of {count(base.trials, 'test run')}), and "
        f"was not seen to fail like that with it ({patched.failures} of {patched.trials}).",
        Judgement.KNOWN: f"The kernel fails, but not because of {name}: {ran} with it, {beside}.",
        Judgement.CLEAN: f"Nothing broke in {count(patched.trials, 'test run')} of the kernel with {name}.",
        Judgement.INCONCLUSIVE: f"In doubt: {ran} with {name}, {beside}, which may be luck."
        if patched.failures
        else f"Nothing can be said about {name}: too few test runs came to a result.",
    }[run.verdict.judgement]
