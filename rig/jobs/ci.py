"""What differs when the rig runs in a pipeline: sections of the log, the job's address, and lines that are only text.

A CI service reads commands in what a job prints (`::add-mask::`, `section_start:`), and the rig prints what guests and
patches say. So in CI every line of it goes through `plain`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from rig.clock import now
from rig.errors import RigError

KEPT = 16 << 20  # bytes of a log that an error points to
FAILURE = "failure"  # the folder below the results in which that log is kept

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Service(StrEnum):
    """Whose log the output goes to."""

    NONE = "none"  # no pipeline
    GITHUB = "github"
    GITLAB = "gitlab"
    OTHER = "other"  # Jenkins and the like: no sections


def service(environment: Mapping[str, str] = os.environ) -> Service:
    """Return the service that runs this process, by the variables that each sets."""
    if environment.get("CI", "").lower() in ("", "0", "false"):
        return Service.NONE
    if environment.get("GITHUB_ACTIONS") == "true":
        return Service.GITHUB
    return Service.GITLAB if environment.get("GITLAB_CI") else Service.OTHER


def job_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return where people find this job, "" outside of a pipeline."""
    if url := environment.get("CI_JOB_URL") or environment.get("BUILD_URL"):
        return url
    parts = [environment.get(name) for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")]
    return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else ""


def begin(where: Service, name: str, title: str) -> str:
    """Return the line that opens a section, "" where there are none. `name`: letters, digits, `_`, `.`, `-`."""
    if where is Service.GITHUB:
        return f"::group::{plain(title, where)}"
    if where is Service.GITLAB:
        return f"\x1b[0Ksection_start:{_epoch()}:{name}\r\x1b[0K{plain(title, where)}"
    return ""


def end(where: Service, name: str) -> str:
    """Return the line that closes it."""
    if where is Service.GITHUB:
        return "::endgroup::"
    return f"\x1b[0Ksection_end:{_epoch()}:{name}\r\x1b[0K" if where is Service.GITLAB else ""


def _epoch() -> int:
    return int(now().timestamp())


def plain(text: str, where: Service) -> str:
    """Return the text, of any number of lines, so that no service and no terminal takes a part of it for a command."""
    if where is Service.NONE:
        return text
    shown = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    if where is Service.GITHUB:  # `::` counts at the start of a line, after blanks; the older `##[` anywhere
        shown = re.sub(r"^(\s*):(?=:)", r"\1\\:", shown, flags=re.MULTILINE).replace("##[", "##\\[")
    return shown


def tame_streams(where: Service) -> None:
    """Let standard output go line by line in a pipeline: it keeps its place among the lines of standard error."""
    if where is not Service.NONE:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")


def keep_failure(results: Path, error: RigError) -> Path | None:
    """Copy what the error points to below the results, which is all that is left of a job, and return its folder.

    None when that cannot be: the error itself matters more.
    """
    folder = results / FAILURE
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "error.txt").write_text(f"{error}\n", errors="backslashreplace")
        if error.evidence is not None and error.evidence.is_file():
            with error.evidence.open("rb") as file:
                file.seek(max(0, error.evidence.stat().st_size - KEPT))
                (folder / error.evidence.name).write_bytes(file.read(KEPT))
    except OSError:
        return None
    return folder
