"""Source lines for the splats of a run, though its kernels have no debug information.

The files that the functions on a stack come from are compiled once more with -g, as inlines.py does it for the touched
ones, and the objects are kept in the store. A line is only given where the function has the same size in the kernel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rig import proc
from rig.clock import Deadline
from rig.errors import ConfigError, HostError
from rig.kernels.make import PINNED
from rig.model import CaseResult, Finding, Kernel, Side, TrialResult, Verdict
from rig.splats.symbols import Symboliser
from rig.store import Store, digest
from rig.touches import inlines
from rig.trees.source import repository
from rig.verdicts.blame import stack

MOST_FRAMES = 24  # of a stack, the innermost
MOST_FILES = 10  # compiled for one kernel
SECONDS = 90.0  # for all files that are not in the store yet; the stacks that remain stay as they are
COMMON = 3  # a name that more files define is not looked for

Say = Callable[[str], None]


def with_lines(
    trials: Sequence[TrialResult],
    verdict: Verdict,
    kernels: Mapping[tuple[str, Side], Kernel],
    store: Store,
    base: str,
    say: Say = lambda _: None,
) -> tuple[TrialResult, ...]:
    """Return the trials, with source lines in the splats of those that are the example of a finding.

    `base` is the commit of the base. What cannot be looked up stays as it is.
    """
    examples = {found.example for found in verdict.findings}
    wanted: dict[tuple[str, Side], list[Finding]] = {}
    for trial in trials:
        for finding in trial.findings if trial.evidence in examples else ():
            if finding.oracle == "console" and stack(finding.text):
                wanted.setdefault((trial.cell.flavour, trial.side), []).append(finding)
    texts: dict[tuple[tuple[str, Side], str], str] = {}
    limit = Deadline(SECONDS)
    for key, findings in wanted.items():
        if key in kernels:
            with suppress(HostError, ConfigError):
                annotate = _annotator(kernels[key], [one.text for one in findings], store, base, limit, say)
                texts |= {(key, one.text): annotate(one.text) for one in findings}
    return tuple(_told(trial, texts) if trial.evidence in examples else trial for trial in trials)


def _told(trial: TrialResult, texts: Mapping[tuple[tuple[str, Side], str], str]) -> TrialResult:
    key = (trial.cell.flavour, trial.side)

    def told(findings: Iterable[Finding]) -> tuple[Finding, ...]:
        return tuple(replace(one, text=texts.get((key, one.text), one.text)) for one in findings)

    cases: tuple[CaseResult, ...] = tuple(replace(case, findings=told(case.findings)) for case in trial.cases)
    return replace(trial, findings=told(trial.findings), cases=cases)


def _annotator(
    kernel: Kernel, splats: Sequence[str], store: Store, base: str, limit: Deadline, say: Say
) -> Callable[[str], str]:
    names = dict.fromkeys(name for text in splats for name in stack(text)[:MOST_FRAMES])
    work = store.root / "work" / f"build-{base[:12]}"
    objects = [
        path
        for file in list(dict.fromkeys(_files(work / f"obj-{kernel.flavour}", names)))[:MOST_FILES]
        if (path := _object(kernel, file, store, work, limit, say)) is not None
    ]

    def annotate(text: str) -> str:
        with Symboliser(kernel.vmlinux, objects) as symbols:
            return symbols.annotate(text)

    return annotate


def _files(objects: Path, names: Iterable[str]) -> Iterable[str]:
    """Yield the source files of functions, in their order, by what the objects of the last build define."""
    # In a folder of its own: what lies at the top, vmlinux.o, is linked of all the others.
    found = sorted(path for path in objects.glob("*/**/*.o") if path.with_name(f".{path.name}.cmd").exists())
    listed = proc.run(["nm", "-A", "--defined-only", *(str(path.relative_to(objects)) for path in found)],
                      timeout=60, cwd=objects)  # fmt: skip
    defined: dict[str, dict[str, None]] = {}
    for line in listed.stdout.splitlines():
        place, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 3 and words[1] in "tT":
            defined.setdefault(words[2], {})[place] = None
    for name in names:
        places = defined.get(name, {})
        if len(places) <= COMMON:
            yield from (str(Path(place).with_suffix(".c")) for place in places)


def _object(kernel: Kernel, file: str, store: Store, work: Path, limit: Deadline, say: Say) -> Path | None:
    """Return the object with debug information of one source file, from the store where it is there."""
    key = digest("lines-1", kernel.key, file)
    stored = store.get("lines", key)
    if stored is None:
        if limit.expired:
            return None
        say(f"{kernel.flavour} {kernel.tree[:12]}: compiling {file} again, for the lines of a splat")
        with suppress(HostError):
            stored = store.publish("lines", key, partial(_compile, kernel, file, store, work))
    return stored / "again.o" if stored else None


def _compile(kernel: Kernel, file: str, store: Store, work: Path, target: Path) -> None:
    objects = work / f"obj-{kernel.flavour}"
    place = objects / file
    try:
        command = inlines.saved_command(place.with_name(f".{place.stem}.o.cmd").read_text())
    except OSError:
        command = None  # another rig builds there
    if command is None:
        raise HostError(f"{file}: kbuild does not say how it was compiled")
    with tempfile.TemporaryDirectory(prefix="rig-lines-") as folder:
        tree = Path(folder) / "tree"
        inlines.write_tree(repository(store), kernel.commit, [file], tree)
        why = inlines.recompile(
            command,
            objects=objects,
            source=work / "source",
            tree=tree,
            path=file,
            target=target / "again.o",
            env=PINNED,
        )
    if why:
        raise HostError(why)
