"""The command line: what it understands, what it says to nonsense, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rig import commandline
from rig.cli import main
from rig.commandline import COMMANDS, GOALS, sort_words
from rig.errors import ConfigError
from rig.settings.config import Bisect

ROOT = Path(__file__).parents[2]

#: Too heavy for `rig --help`: a tenth of a second or more together.
HEAVY = {"pydantic", "yaml", "rich", "fabric", "paramiko", "junit_xml", "qemu", "asyncio", "scipy", "matplotlib"}


def test_goals_commands_and_overrides_are_told_apart() -> None:
    assert sort_words([]).goals == ("test",)
    assert sort_words(["build", "series=x", "build", "apply"]).goals == ("build", "apply")
    assert sort_words(["shell", "a/b", "x=1"]) == type(sort_words([]))((), "shell", ("a/b",), ("x=1",))
    with pytest.raises(ConfigError, match=r"'biuld' is neither .* did you mean 'build'"):
        sort_words(["biuld"])


def test_help_teaches_every_goal_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in (*GOALS, *COMMANDS, "KEY=VALUE", "select=", "130"):
        assert word in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rig.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-f", "/no/such/rig.yaml"], 2, "no such file"),
        (["-C", "/no/such/folder"], 2, "no such folder"),
        (["-j", "0"], 2, "expected at least 1"),
        (["tset"], 2, "did you mean 'test'"),
        (["-f", str(ROOT / "rig.yaml"), "list", "budget=x"], 2, "command line: budget=x"),
        (["-f", str(ROOT / "rig.yaml"), "list", "select=nothing"], 2, "picks no cell"),
        (["-f", str(ROOT / "rig.yaml"), "shell"], 2, "usage: rig shell CELL"),
        (["-f", str(ROOT / "rig.yaml"), "rerun", "/tmp"], 2, "usage: rig rerun DIR"),
    ],
)
def test_bad_input_is_one_sentence_and_a_hint(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_list_prints_the_cells_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    file = ["-f", str(ROOT / "rig.yaml")]
    assert main([*file, "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main([*file, "--json", "list"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == cells
    assert any(cell.startswith("release/") for cell in cells)
    assert any(cell.startswith("debug/") for cell in cells)


def test_words_of_a_bisection_by_counts_are_those_of_a_bench_as_well() -> None:
    def overrides(*words: str, counts: bool = False) -> list[str]:
        return commandline.bisect_words(commandline.sort_words(["bisect", *words]), every_prefix=False, counts=counts)

    assert overrides("series=s", "limit=9", "cpus=1") == ["series=s", "bisect.limit=9", "cpus=1"]
    assert overrides("series=s", "cpus=1", counts=True) == ["series=s", "bench.cpus=1", "bisect.counts=true"]
    assert overrides("count=atomics per page", "case=exec") == [
        "bisect.count=atomics per page",
        "bench.cases=exec",
        "bisect.counts=true",
    ]
    assert set(commandline.BISECT_KEYS) < set(Bisect.model_fields)
    assert not set(commandline.BISECT_KEYS) & set(commandline.BENCH_KEYS)
