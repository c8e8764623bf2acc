"""Writes a run as JUnit XML; the one module that imports junit_xml.

One suite per machine and kernel, one test case per workload case, *aggregated* over the trials of its cell: GitLab and
Jenkins follow a test by suite, class name and name, so a name with a trial's number or seed in it would turn each
run's cases into new tests, and the trial that failed would be gone from the history on the next run. The worst trial
decides; the text lists all of them, and the suite's properties hold the seeds.

    PASS                  nothing inside the test case
    FAIL, CRASH, TIMEOUT  <failure type="the finding's kind" message="its title"> with splat and reproducer, one for
                          each signature
    LOST                  <error>: nothing is known, and the operator has to act
    SKIP, INCONCLUSIVE    <skipped>: an inconclusive case says so in its message

The dialect is what Jenkins' xUnit plugin validates (junit-10.xsd); where GitLab's reader differs, both understand it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rig.bisection.outcomes import Bisection
from rig.bisection.outcomes import Outcome as Blame
from rig.costs.metrics import Bench, regressions
from rig.costs.words import in_words
from rig.detection import outcomes
from rig.detection.outcomes import Outcome, Selfcheck
from rig.model import CaseResult, Finding, GuestState, Side, Status, TrialResult
from rig.reports import again
from rig.reports.cases import Case, case_names, cases_of, distinct, of_status, often, seconds_of
from rig.reports.printable import cut, one_line, shown
from rig.runs.results import Run
from rig.store import write_atomically
from rig.trials.coverage import least
from rig.verdicts.blame import blame

if TYPE_CHECKING:
    from junit_xml import TestCase, TestSuite

MAX_TEXT = 65536  # characters of one failure's text
MAX_MESSAGE = 300
ATTACHED = ("console.log", "ktap.log")


def write_junit(path: Path, run: Run, root: Path) -> None:
    """Publish the run as JUnit XML in `path`; `root` is the run's folder, in which the evidence of the trials lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_xml(run, root))


def to_xml(run: Run, root: Path) -> str:
    """Return the run as JUnit XML."""
    return _document(_suites(run, root))


def _document(suites: Iterable[TestSuite]) -> str:
    top = ET.Element("testsuites", name="rig")
    totals = dict.fromkeys(("tests", "failures", "errors"), 0)
    seconds = 0.0
    for suite in suites:
        element = suite.build_xml_doc()
        # junit_xml counts `disabled` cases, of which there are none and which Jenkins' schema does not know.
        element.attrib.pop("disabled", None)
        element.set("time", f"{float(element.get('time', '0')):.3f}")
        for name in totals:
            totals[name] += int(element.get(name, "0"))
        seconds += float(element.get("time", "0"))
        top.append(element)
    for name, number in totals.items():
        top.set(name, str(number))
    top.set("time", f"{seconds:.3f}")
    ET.indent(top, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def selfcheck_xml(check: Selfcheck) -> str:
    """Return a selfcheck as JUnit XML: a missed control, a false alarm and a crash that was not seen right fail."""
    from junit_xml import TestCase, TestSuite

    def case(name: str, kind: str, bad: str, text: str, seconds: float = 0.0, *, broken: bool = False) -> TestCase:
        made = TestCase(shown(name), classname=f"selfcheck.{kind}", elapsed_sec=seconds, stdout=shown(text))
        if bad:
            (made.add_error_info if broken else made.add_failure_info)(
                _message(bad, Status.FAIL), cut(shown(text), MAX_TEXT)
            )
        return made

    bad = [
        case(
            one.name,
            "controls",
            "" if one.outcome is Outcome.CAUGHT else one.reason or str(one.outcome),
            outcomes.control_line(one),
            sum(hunt.seconds for hunt in one.hunts),
            broken=one.outcome is Outcome.BROKEN,
        )
        for one in check.controls
    ]
    good = [
        case(
            one.name,
            "innocents",
            one.reason or (f"false alarm: {one.alarms[0].title}" if one.alarms else "" if one.trials else "no trials"),
            outcomes.good_line(one),
            broken=not one.trials,
        )
        for one in check.goods
    ]
    crashes = [
        case(one.crash, "console", "" if one.ok else one.reason, f"{one.kind}: {one.title}") for one in check.console
    ]
    suites = [(name, cases) for name, cases in (("controls", bad), ("innocents", good), ("console", crashes)) if cases]
    facts = {"accelerator": check.accelerator, "base": check.base, "rig.version": check.rig_version, "run": check.id}
    properties = {name: shown(value) for name, value in facts.items()}
    stamp = shown(check.started)
    return _document([TestSuite(name, cases, timestamp=stamp, properties=properties) for name, cases in suites])


def bisection_xml(done: Bisection) -> str:
    """Return a bisection as JUnit XML: a case for each prefix, in which the findings fail that its patch brought."""
    from junit_xml import TestCase, TestSuite

    cases = []
    for state in done.prefixes:
        story = (f"{state.trials} trials, {state.failures} with a finding that is hunted", *state.others)
        name, words = shown(f"{state.number}: {state.subject}"), shown("\n".join(story))
        made = TestCase(name, classname="bisect", stdout=words, allow_multiple_subelements=True)
        decided = (one for one in done.findings if one.outcome is Blame.FOUND)
        brought = [one for one in decided if state.number in {culprit.number for culprit in one.culprits}]
        for one in brought:
            text = "\n".join(
                (one.sentence, f"Reproduce: {one.reproduce}" if one.reproduce else "", f"Cell: {one.cell}")
            )
            made.add_failure_info(_message(one.title, Status.FAIL), cut(shown(text), MAX_TEXT), shown(one.kind))
        if not brought and state.state != "built":
            made.add_skipped_info(_message(f"{state.state}: {state.reason}".rstrip(": "), Status.SKIP))
        cases.append(made)
    facts = {"status": done.status, "sentence": done.sentence, "accelerator": done.accelerator, "run": done.id}
    properties = {name: shown(value) for name, value in facts.items()}
    return _document([TestSuite(shown(f"bisect {done.series}"), cases, timestamp=done.started, properties=properties)])


def bench_xml(bench: Bench) -> str:
    """Return a bench as JUnit XML: a change for the worse beyond the threshold fails, a broken trial is an error."""
    from junit_xml import TestCase, TestSuite

    failed = set(regressions(bench))
    suites: dict[str, list[TestCase]] = {}
    for one in bench.comparisons:
        case = TestCase(one.where.id, classname=f"bench.{one.metric}", stdout=in_words(one))
        if one in failed:
            case.add_failure_info(in_words(one), in_words(one), failure_type="cost")
        suites.setdefault(one.subject, []).append(case)
    for trouble in bench.troubles:
        case = TestCase(f"{trouble.cell} {trouble.kind} {trouble.evidence}", classname="bench.trial")
        case.add_error_info(_message(f"{trouble.status}: {trouble.reason}", Status.LOST), trouble.evidence)
        suites.setdefault(trouble.subject, []).append(case)
    facts = {"accelerator": bench.accelerator, "base": bench.base, "rig.version": bench.rig_version, "run": bench.id}
    properties = {name: shown(value) for name, value in facts.items()}
    stamp = shown(bench.started)
    return _document([TestSuite(name, cases, timestamp=stamp, properties=properties) for name, cases in suites.items()])


# -- what goes together -----------------------------------------------------------------------------------------------


def _suites(run: Run, root: Path) -> Iterator[TestSuite]:
    from junit_xml import TestSuite

    groups: dict[tuple[str, str, Side, int], list[TrialResult]] = {}
    for trial in run.trials:
        cell = trial.cell
        groups.setdefault((cell.flavour, cell.machine, trial.side, trial.prefix), []).append(trial)
    names = case_names(run.trials)
    for (flavour, machine, side, prefix), trials in sorted(groups.items()):
        yield TestSuite(
            shown(f"{flavour}/{machine} {_kernel_name(run, side, prefix)}"),
            [_test_case(run, case, again.near(root)) for case in cases_of(trials, names)],
            timestamp=shown(min(trial.started for trial in trials)),
            properties={name: shown(value) for name, value in _properties(run, trials).items()},
        )


def _kernel_name(run: Run, side: Side, prefix: int) -> str:
    """`base`, `patched`, or `patch-2` for a kernel in the middle of the series."""
    usual = 0 if side is Side.BASE else len(run.series.patches)
    return str(side) if prefix == usual else f"patch-{prefix}" if side is Side.PATCHED else f"base-{prefix}"


# -- one test case ----------------------------------------------------------------------------------------------------


def _test_case(run: Run, case: Case, root: Path) -> TestCase:
    from junit_xml import TestCase

    result = TestCase(
        shown(case.name),
        classname=shown(f"{case.workload}.{case.filesystem}"),
        elapsed_sec=round(sum(seconds_of(trial, one) for trial, one in case.results), 3),
        stdout=_output(case, root),
        allow_multiple_subelements=True,
    )
    if case.status.bad:
        for trial, one, finding in distinct(case):
            title = (finding.title if finding else one.reason) or trial.reason
            result.add_failure_info(
                _message(f"{_line(title, one.status)}{often(case, one, finding)}", one.status),
                _story(run, case, trial, one, finding, root),
                _message(finding.kind if finding else one.status, one.status).lower(),
            )
    elif case.status is Status.LOST:
        trial, one = of_status(case, Status.LOST)
        story = _story(run, case, trial, one, None, root)
        result.add_error_info(_message(one.reason or trial.reason, Status.LOST), story, "lost")
    elif case.status in (Status.SKIP, Status.INCONCLUSIVE):
        _, one = of_status(case, case.status)
        prefix = "inconclusive: " if case.status is Status.INCONCLUSIVE else ""
        result.add_skipped_info(_message(prefix + one.reason, case.status))
    return result


def _story(run: Run, case: Case, trial: TrialResult, one: CaseResult, finding: Finding | None, root: Path) -> str:
    """What happened, the splat, and how to see it again."""
    lines = [f"{one.status}: {one.reason or trial.reason}", _where(trial)]
    passed = sum(other.status is Status.PASS for _, other in case.results)
    if passed and one.status.bad:
        lines.append(f"Flaky: {passed} of the {len(case.results)} trials of this case passed")
    if finding and run.series.patches:
        lines.append(f"Series: {blame(run, trial, finding).sentence}")
    lines += [
        f"Reproduce: {again.anywhere(run, trial)}",
        f"This trial: {again.rerun(trial.evidence, root)}",
        "",
    ]
    if finding and finding.text:
        lines.append(finding.text)
    others = [other.title for other in trial.findings if finding is None or other.signature != finding.signature]
    if others:
        lines += ["", "Also seen in this trial:", *(f"  {other}" for other in dict.fromkeys(others))]
    return cut(shown("\n".join(lines)), MAX_TEXT)


def _where(trial: TrialResult) -> str:
    return (
        f"Trial {trial.index} of {trial.cell.id} on the {trial.side} kernel (tree {trial.tree[:12]}), "
        f"seed {trial.seed}, {trial.accelerator}"
    )


def _output(case: Case, root: Path) -> str:
    """All trials in a line each, their counters, and the logs as attachments."""
    lines = []
    for trial, one in case.results:
        counters = " ".join(f"{name}={value}" for name, value in one.counters)
        lines.append(f"trial {trial.index} seed {trial.seed}: {one.status} {one.reason} {counters}".rstrip())
    for trial, one in case.results:
        if one.status is Status.PASS and case.status is not Status.PASS:
            continue
        logs = (root / trial.evidence / name for name in ATTACHED)
        lines += [f"[[ATTACHMENT|{log}]]" for log in logs if log.exists()]
    return cut(shown("\n".join(lines)), MAX_TEXT)


# -- properties -------------------------------------------------------------------------------------------------------


def _properties(run: Run, trials: Sequence[TrialResult]) -> dict[str, str]:
    """What the suite ran on, as the guest read it back; `unknown` when no trial came that far."""
    guest = next((trial.guest for trial in trials if trial.guest), None)
    first = trials[0]
    properties = {
        "accelerator": _joined(trial.accelerator for trial in trials),
        "accelerator.reason": run.host.accelerator_reason,
        "tree": _joined(trial.tree for trial in trials),
        "prefix": str(first.prefix),
        "series": run.series.name,
        "base": f"{run.base.source} {run.base.commit}",
        "seeds": _joined(str(trial.seed) for trial in trials),
        "trials": str(len(trials)),
        "rig.version": run.rig_version,
        "run": run.id,
    }
    properties |= {f"coverage.{name}": str(count) for name, count in least(trial.coverage for trial in trials)}
    return properties | (_guest_properties(guest) if guest else {"cpus": "unknown"})


def _guest_properties(guest: GuestState) -> dict[str, str]:
    return {
        "kernel.release": guest.release,
        "cpus": str(guest.cpus),
        "numa.nodes": str(guest.nodes),
        "memory.kib": str(guest.memory_kib),
        "hugepages.thp": guest.thp,
        "hugepages.shmem": guest.shmem_thp,
        "hugepages.hugetlb": f"{guest.hugepages} of {guest.hugepage_kib} KiB",
    }


def _joined(values: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(values))


def _message(text: str, status: Status) -> str:
    """One line, never empty; a reader shows it beside the name."""
    return one_line(text, MAX_MESSAGE) or str(status)


def _line(text: str, status: Status) -> str:
    """The same, with room left for how often."""
    return one_line(text, MAX_MESSAGE - 40) or str(status)
