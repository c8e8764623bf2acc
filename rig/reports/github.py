"""What GitHub shows of a run: a summary of the step, and annotations. Any text of a guest stays text in both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from rig.model import FindingVerdict, Judgement
from rig.reports import again
from rig.reports.printable import cut, one_line, shown
from rig.reports.words import failed, headline, listing
from rig.runs.results import Run
from rig.verdicts.blame import of_verdict

MOST_ANNOTATIONS = 10  # errors that GitHub shows of one step
MOST_FINDINGS = 20
MOST_TEXT = 8192  # characters of a splat: a step's summary may have 1 MiB in all

LEVELS = {
    Judgement.REGRESSION: "error",
    Judgement.KNOWN: "warning",
    Judgement.INCONCLUSIVE: "warning",
    Judgement.FIXED: "notice",
    Judgement.CLEAN: "notice",
}


def tell(run: Run, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Append the summary where GitHub's runner wants it, and return the annotations to print; () elsewhere.

    A part of a run says nothing: `rig merge` has the whole, and would say it again.
    """
    if environment.get("GITHUB_ACTIONS") != "true" or run.config.get("part"):
        return ()
    if place := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(step_summary(run))
    return tuple(commands(run))


def commands(run: Run) -> Iterator[str]:
    """Yield workflow commands: the verdict, and each finding."""
    yield _command(LEVELS[run.verdict.judgement], f"rig: {run.verdict.judgement}", headline(run))
    for found in run.verdict.findings[: MOST_ANNOTATIONS - 1]:
        text = "\n".join((found.sentence, *_pointed(run, found), f"See it again: {_again(run, found)}"))
        yield _command(LEVELS[found.judgement], f"{found.judgement}: {found.title}", text)


def _command(level: str, title: str, text: str) -> str:
    """A workflow command: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    name = _data(one_line(title, 200)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{_data(shown(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def step_summary(run: Run) -> str:
    """Return the run as GitHub's Markdown."""
    lines = [
        f"## rig: {run.verdict.judgement}",
        "",
        _text(headline(run)),
        "",
        _text(run.verdict.sentence),
        "",
    ]
    if run.verdict.findings:
        lines += ["| verdict | finding | base | patched | cells |", "|---|---|---|---|---|"]
        lines += [
            f"| {found.judgement} | {_text(found.title)} | {found.base} | {found.patched} | "
            f"{_text(listing(found.cells, 3))} |"
            for found in run.verdict.findings
        ]
        lines.append("")
    for found in run.verdict.findings[:MOST_FINDINGS]:
        lines += _details(run, found)
    lines += [f"- {_text(note)}" for note in run.verdict.notes]
    base, patched = failed(run)
    trees = run.series.patches[-1].tree[:12] if run.series.patches else run.base.tree[:12]
    foot = (
        f"<sub>{_text(run.series.name)}, tree {_text(trees)}, on {_text(run.base.source)}; "
        f"{base.trials} trials of the base, {patched.trials} patched; {_text(run.host.accelerator.upper())}</sub>"
    )
    return "\n".join((*lines, "", foot, ""))


def _details(run: Run, found: FindingVerdict) -> list[str]:
    example = again.example(run, found.example)
    seen = next((one for one in example.findings if one.signature == found.signature), None) if example else None
    pre = [f"<pre>{escape(_flat(cut(shown(seen.text), MOST_TEXT)))}</pre>"] if seen and seen.text else []
    return [
        f"<details><summary>{_text(found.title)}</summary>",
        "",
        _text("; ".join((found.sentence, *_pointed(run, found)))),
        "",
        f"<pre>{escape(_flat(shown(_again(run, found))))}</pre>",
        *pre,
        "</details>",
        "",
    ]


def _flat(text: str) -> str:
    """An empty line would end the HTML block, and what follows would be read as Markdown."""
    return re.sub(r"\n[ \t]*(?=\n)", "\n\N{NO-BREAK SPACE}", text)


def _pointed(run: Run, found: FindingVerdict) -> list[str]:
    pointed = of_verdict(run, found)
    return [pointed.sentence] if pointed and pointed.suspects else []


def _again(run: Run, found: FindingVerdict) -> str:
    example = again.example(run, found.example)
    return again.anywhere(run, example) if example else again.rerun(found.example)


def _text(text: str) -> str:
    """Text in which Markdown and HTML find nothing to act on."""
    return re.sub(r"[^\w .,;()/=-]", lambda match: f"&#{ord(match[0])};", one_line(text, 1000))
