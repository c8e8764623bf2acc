"""What the host lacks, and what set-up says about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rig.front.doctor import NEEDS, Need, apt_command, checks, missing

ROOT = Path(__file__).parents[2]


def test_programs_files_and_modules_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Need("sh", "dash", "").there
    assert Need("/etc/pass*d", "passwd", "").there
    assert Need("import json", "python3", "").there
    absent = (Need("no-such-program", "b", ""), Need("/no/such/file", "a", ""), Need("import no_such_module", "c", ""))
    assert missing(absent) == absent
    assert apt_command(absent).endswith(" a b c")


def test_the_report_names_package_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = list(checks(tmp_path))
    lacking = [check.text for check in report if check.fatal and not check.ok]
    assert any("package gcc" in text for text in lacking)
    assert any(text.startswith("install what is missing: apt-get install") for text in lacking)


def test_the_table_needs_only_the_standard_library() -> None:
    code = "import sys, rig.front.doctor; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"rig", "__main__"} <= set(sys.stdlib_module_names) | {"sitecustomize"}


def test_set_up_without_root_prints_one_apt_command_and_stops(tmp_path: Path) -> None:
    for name in ("sh", "dirname", "tr", "cat"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    # Not a link: an interpreter of an environment must find its own folder.
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    for name in ("python3", "id"):
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "ci/setup"],
        env={"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    commands = [line for line in done.stderr.splitlines() if "apt-get install" in line]
    assert len(commands) == 1
    assert {"gcc", "make"} <= set(commands[0].split())


def test_every_need_says_why() -> None:
    assert all(need.why and need.package for need in NEEDS)
