"""The page of a run in a real browser: nothing is fetched, nothing a guest printed runs, and it fits any screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from browser import Browser
from madeup import BUG, STALE, cell, kernel, run, trial

from rig.model import CaseResult, Side, Status
from rig.reports import html
from rig.runs.results import Patch
from rig.touches.touched import Function

EVIL = '</pre></code></style></title><script>document.title="ran"</script><img src="http://127.0.0.1:9/x">'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything that a guest or a patch can name tries to break out."""
    folder = tmp_path_factory.mktemp("run")
    splat = f"{BUG.text}\n next_uptodate_folio+0x1/0x2\n{EVIL}\n" + "long " * 200
    bug = dataclasses.replace(BUG, title=f"kernel BUG in {EVIL}", text=splat, first_line=2, last_line=3)
    wide = dataclasses.replace(STALE, title="stale_" + "x" * 150, signature="data:wide")
    counted = tuple((f"counter_{number}", number) for number in range(30))
    cases = (CaseResult(name=EVIL, status=Status.CRASH, findings=(bug,), counters=counted),)
    trials = [trial(Side.BASE, index=i, cases=cases) for i in range(2)]
    for machine in ("smp4", "numa8", "numa16", "uni"):
        where = cell(machine=machine)
        trials.append(
            dataclasses.replace(trial(Side.PATCHED, Status.CRASH, bug, where=where, cases=cases), first_finding=1.0)
        )
        trials.append(trial(Side.PATCHED, Status.FAIL, wide, where=where, index=1, coverage=(("pgfault", 7),)))
    evidence = folder / trials[2].evidence
    evidence.mkdir(parents=True)
    (evidence / "console.log").write_text(f"boot\n{EVIL}\n\x1b[31mRIP\n")
    whole = run(*trials)
    functions = tuple(Function("mm/filemap.c", name) for name in ("next_uptodate_folio", "a" * 60))
    patch = Patch(number=1, subject=EVIL, commit="c", tree="t" * 40, functions=functions)
    series = dataclasses.replace(whole.series, name=EVIL, patches=(patch,))
    whole = dataclasses.replace(whole, series=series, kernels=(kernel(),), config={"a": EVIL})
    html.write_html(folder / "report.html", whole, folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if browser.program() is None:
        pytest.skip("no Chromium on this host; Debian's package is chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1200, False), (1200, True)])
def test_the_page_is_whole_in_any_window(chromium: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    chromium.open(page, width=width, dark=dark)
    assert chromium.complaints == []
    assert chromium.requests == [page.as_uri()]
    assert ": </pre>" in chromium.value("document.title")
    assert chromium.value("document.images.length + document.scripts.length") == 0
    assert chromium.value("document.querySelectorAll('article.finding').length") == 2
    # Closed parts as well: nothing in them may be wider than the window.
    chromium.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert chromium.value("document.documentElement.scrollWidth") <= width
    chromium.screenshot(tmp_path / "page.png", whole=False)
    assert (tmp_path / "page.png").stat().st_size > 5_000


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_told_from_what_they_stand_on(chromium: Browser, page: Path, dark: bool) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5 at least, for all text outside of the figures."""
    chromium.open(page, dark=dark)
    chromium.value("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert chromium.value(CONTRAST) == []


#: The texts with too little contrast. Backgrounds are laid over each other, as those of the heat map are translucent.
CONTRAST = r"""
(() => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a] };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = color => {
    const [r, g, b] = color.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const bad = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('svg')) continue;
    const paper = behind(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), paper)), light(paper)];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const words = walker.currentNode.data.trim().slice(0, 40);
    if (ratio < 4.5) bad.add(`${ratio.toFixed(2)} ${element.className || element.tagName}: ${words}`);
  }
  return [...bad];
})()
"""
