"""What selfchecks measured of the rig itself, kept beside the controls, and the table that is made from it.

`patches/selfcheck.json` holds one Selfcheck (outcomes.py), put together from as many runs as it took: what a later run
says of a control, of somebody innocent or of a crash takes the place of what an earlier one said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rig.detection import outcomes
from rig.detection.outcomes import Hunted, Selfcheck
from rig.errors import ConfigError
from rig.records.subjects import CONTROLS, PATCHES
from rig.reports.mdtable import placed
from rig.runs import results
from rig.store import write_atomically

FILE = f"{PATCHES}/selfcheck.json"
README = f"{PATCHES}/{CONTROLS}/README.md"
BEGIN, END = "<!-- selfcheck:begin -->", "<!-- selfcheck:end -->"
#: Of the configuration only what the figures depend on.
SETTINGS = ("budget", "flavours", "machines", "perturb", "seed", "selfcheck", "workloads")

T = TypeVar("T")


def read(path: Path) -> Selfcheck:
    """Return the selfcheck of a selfcheck.json, or of the folder that holds one; raises ConfigError for any other."""
    file = path / "selfcheck.json" if path.is_dir() else path
    try:
        return results.from_json(Selfcheck, json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no selfcheck: {error}", hint="`rig selfcheck` writes selfcheck.json") from None


def merged(checks: Sequence[Selfcheck]) -> Selfcheck:
    """Return one selfcheck made of at least one, the later ones before the earlier."""
    last = checks[-1]
    controls = _newest((one.controls for one in checks), "name")
    goods = _newest((one.goods for one in checks), "name")
    console = _newest((one.console for one in checks), "crash")
    return replace(
        last,
        controls=controls,
        goods=goods,
        console=console,
        config={key: last.config[key] for key in SETTINGS if key in last.config},
        summary=outcomes.summarise(controls, goods, console, float(_threshold(last.config))),
    )


def _newest(groups: Iterable[Sequence[T]], key: str) -> tuple[T, ...]:
    found = {getattr(one, key): one for group in groups for one in group}
    return tuple(found[name] for name in sorted(found))


def _threshold(config: Mapping[str, Any]) -> Any:
    return config.get("selfcheck", {}).get("threshold", 0.9)


def table(check: Selfcheck) -> str:
    """Return the selfcheck as Markdown: the numbers, each bad control, and who was accused wrongly."""
    head = ("control", "caught?", "seconds", "trials", "by", "in")
    rows = [_row(one) for one in check.controls]
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    accused = [f"- `{good.name}`: {alarm.title} in {alarm.cell}" for good in check.goods for alarm in good.alarms]
    doubtful = sum(good.inconclusive for good in check.goods)
    lost = sum(good.lost for good in check.goods)
    clean = (
        f"{len(check.goods)} innocents (the base and good controls), {check.summary.good_trials} trials that count; "
        f"beside them {doubtful} inconclusive and {lost} lost or skipped."
    )
    return "\n".join(
        [
            f"**{outcomes.sentence(check.summary)}** ({check.accelerator.upper()})",
            "",
            *(f"| {line} |" for line in lines),
            "",
            clean,
            *(["", "Accused wrongly:", "", *accused] if accused else []),
        ]
    )


def _row(one: Hunted) -> tuple[str, ...]:
    trials = str(sum(hunt.trials for hunt in one.hunts))
    found = next((hunt.found for hunt in one.hunts if hunt.found), None)
    others = [other for hunt in one.hunts for other in hunt.others]
    shown = found or (others[0] if others else None)
    seconds = f"{one.seconds:.1f}" if one.seconds is not None else f"{sum(hunt.seconds for hunt in one.hunts):.0f} used"
    by, where = (f"{shown.oracle}: {shown.title}", shown.cell) if shown else (one.reason or "-", "-")
    return (f"[`{one.name}`]({one.name}/)", str(one.outcome), seconds, trials, by.replace("|", "\\|"), where)


def record(root: Path, paths: Sequence[Path]) -> Selfcheck:
    """Put the selfchecks of `paths` on record below `root`, over what is there, and render the README."""
    file = root / FILE
    known = [read(file)] if file.exists() else []
    whole = merged([*known, *map(read, paths)])
    write_atomically(file, json.dumps(outcomes.dump(whole), indent=1, sort_keys=True) + "\n")
    write_atomically(root / README, rendered(root, whole))
    return whole


def rendered(root: Path, check: Selfcheck) -> str:
    """Return the README with the table between its markers; raises ConfigError when they do not stand there."""
    return placed((root / README).read_text(encoding="utf-8"), BEGIN, END, table(check), name=README)
