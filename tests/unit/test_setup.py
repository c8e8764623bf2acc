"""ci/setup where nothing is: what it asks apt for first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "tr", "tail", "rm", "env", "cat", "ln")
APT = """\
#!/bin/sh
echo "$*" >>"$APT_LOG"
case "$*" in *" python3") ln -s {python} {bin}/python3 ;; install*) exit 1 ;; esac
"""


def test_a_bare_container_gets_python_before_anything_else(tmp_path: Path) -> None:
    project, programs = tmp_path / "project", tmp_path / "bin"
    (project / "ci").mkdir(parents=True)
    shutil.copy(ROOT / "ci/setup", project / "ci")
    shutil.copytree(ROOT / "rig", project / "rig", ignore=shutil.ignore_patterns("__pycache__"))
    programs.mkdir()
    for name in TOOLS:
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "id").write_text("#!/bin/sh\necho 0\n")
    (programs / "apt-get").write_text(APT.format(bin=programs, python=Path("/usr/bin/python3").resolve()))
    for name in ("id", "apt-get"):
        (programs / name).chmod(0o755)
    log = tmp_path / "apt.log"
    done = subprocess.run(
        [project / "ci/setup"],
        env={"PATH": str(programs), "APT_LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr  # this apt gives nothing else
    assert "the log is .setup.log" in done.stderr
    update, first, _, second = log.read_text().splitlines()
    assert update.startswith("update")
    assert first.endswith("--no-install-recommends python3")
    assert {"git", "qemu-system-x86"} <= set(second.split())
