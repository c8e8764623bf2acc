"""Small stand-ins for the services: they run the shell steps of ci/'s pipelines as the services would, job by job.

Every job has a checkout of its own, and only what the pipeline says goes from one to the next.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dekobon_tree_sitter_groovy
import tree_sitter
import yaml

SECONDS = 300.0

#: In place of ci/setup: the packages are those that run the test.
SETUP = """\
#!/bin/sh -e
mkdir -p .venv/bin
printf '#!/bin/sh\\nexec {python} -m rig "$@"\\n' >.venv/bin/rig
chmod +x .venv/bin/rig
"""


@dataclass
class Ran:
    """A job that was run."""

    name: str
    folder: Path
    code: int
    output: str


@dataclass
class Service:
    """What all of them have: checkouts, a shell, and a place for artifacts."""

    project: Path
    home: Path
    env: dict[str, str]
    seconds: float = SECONDS
    ran: list[Ran] = field(default_factory=list)

    def checkout(self, name: str) -> Path:
        folder = self.home / re.sub(r"\W+", "-", name)
        shutil.copytree(self.project, folder, symlinks=True)
        return folder

    def bash(self, script: str, folder: Path, env: Mapping[str, str], *, sh: bool = False) -> tuple[int, str]:
        argv = ["sh", "-xe"] if sh else ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
        file = self.home / "script"
        file.write_text(script)
        done = subprocess.run(
            [*argv, str(file)],
            cwd=folder,
            env=self.env | dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        return done.returncode, done.stdout

    def job(self, prefix: str) -> list[Ran]:
        return [one for one in self.ran if one.name.startswith(prefix)]


def copy(source: Path, target: Path, patterns: Sequence[str], without: Sequence[str] = ()) -> None:
    """Copy what the patterns name, links as what they point to, so that what was forgotten to be left out shows."""
    for pattern in patterns:
        for found in sorted(source.glob(pattern.removeprefix("./").rstrip("/"))):
            files = [found] if found.is_file() else [path for path in walk(found) if path.is_file()]
            for path in files:
                name = str(path.relative_to(source))
                if not any(fnmatch.fnmatch(name, one) or fnmatch.fnmatch(name, f"{one}/*") for one in without):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target / name)


def walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from walk(entry)
        else:
            yield entry


# -- GitHub -----------------------------------------------------------------------------------------------------------


@dataclass
class GitHub(Service):
    """Runs a workflow. Of its expressions it knows those that stand in `known` below; another one fails the test."""

    summary: str = ""

    def run(self, file: Path, args: str) -> None:
        workflow = yaml.safe_load(file.read_text())
        known: dict[str, Any] = {"inputs.args || vars.RIG_ARGS": args}
        env = {name: self.value(text, known) for name, text in workflow["env"].items()}
        jobs = workflow["jobs"]
        outputs = self.one("build", jobs["build"], env, known)
        known["needs.build.outputs.cells"] = outputs.get("cells", "")
        known["fromJSON(needs.build.outputs.cells)"] = json.loads(outputs.get("cells") or "null")
        if self.ran[-1].code == 0:
            matrix = self.value(jobs["cells"]["strategy"]["matrix"], known)
            for index, entry in enumerate(matrix["include"]):
                own = known | {"strategy.job-index": str(index)} | {f"matrix.{k}": v for k, v in entry.items()}
                self.one(str(self.value(jobs["cells"]["name"], own)), jobs["cells"], env, own)
            assert jobs["report"]["if"] == "${{ always() && needs.build.result == 'success' }}"
            self.one("report", jobs["report"], env, known)

    def value(self, text: Any, known: Mapping[str, Any]) -> Any:
        text = str(text)
        if match := re.fullmatch(r"\$\{\{ (.*?) \}\}", text):
            return known[match[1]]
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: str(known[found[1]]), text)

    def one(self, name: str, job: dict[str, Any], env: dict[str, str], known: Mapping[str, Any]) -> dict[str, str]:
        folder, files, code, output = Path(), {}, 0, ""
        for part in ("GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"):
            files[part] = self.home / f"{part}-{len(self.ran)}"
            files[part].write_text("")
        for step in job["steps"]:
            condition = step.get("if", "${{ success() }}")
            if not {"${{ success() }}": code == 0, "${{ failure() }}": code != 0, "${{ always() }}": True}[condition]:
                continue
            uses, given = step.get("uses", "").partition("@")[0], step.get("with", {})
            if uses == "actions/checkout":
                folder = self.checkout(f"github-{name}")
            elif uses == "actions/upload-artifact":
                self.upload(folder, self.value(given["name"], known), given["path"].split())
            elif uses == "actions/download-artifact":
                self.download(folder, given)
            elif not uses:
                path = ":".join([*reversed(files["GITHUB_PATH"].read_text().split()), self.env["PATH"]])
                own = {key: str(self.value(text, known)) for key, text in step.get("env", {}).items()}
                special = {key: str(file) for key, file in files.items()}
                more = {"CI": "true", "GITHUB_ACTIONS": "true", "PATH": path}
                status, words = self.bash(step["run"], folder, env | own | special | more)
                output += words
                code = code or status
            else:
                assert uses == "actions/cache"
        self.ran.append(Ran(name, folder, code, output))
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        if code:
            return {}
        lines = (line.partition("=") for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        said = {f"steps.cells.outputs.{key}": text for key, _, text in lines}
        return {key: str(self.value(text, said)) for key, text in (job.get("outputs") or {}).items()}

    def upload(self, folder: Path, name: str, patterns: Sequence[str]) -> None:
        """The root of an artifact is the folder that its one path names."""
        (place,) = (pattern for pattern in patterns if not pattern.startswith("!"))
        scratch = self.home / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        copy(folder, scratch, [place], [pattern[1:] for pattern in patterns if pattern.startswith("!")])
        source = scratch / place
        if source.is_file():
            (self.home / "artifacts" / name).mkdir(parents=True)
            shutil.copy(source, self.home / "artifacts" / name)
        elif source.is_dir():
            shutil.copytree(source, self.home / "artifacts" / name)

    def download(self, folder: Path, given: Mapping[str, str]) -> None:
        home = self.home / "artifacts"
        if "name" in given:
            shutil.copytree(home / given["name"], folder, dirs_exist_ok=True)
            return
        for artifact in sorted(home.glob(given["pattern"])):
            shutil.copytree(artifact, folder / given["path"] / artifact.name)


# -- GitLab -----------------------------------------------------------------------------------------------------------


@dataclass
class GitLab(Service):
    """Runs a pipeline and its child: `extends`, variables, rules of the form `$X` and `$X == null`, artifacts."""

    number: int = 0

    def run(self, file: Path, args: str) -> None:
        config = yaml.safe_load(file.read_text())
        variables = {key: str(value) for key, value in config["variables"].items()} | {"RIG_ARGS": args}
        variables["CI_PIPELINE_ID"] = "77"
        build = self.job_of(config, "rig-build")
        assert self.selected(build, variables)
        self.one("rig-build", build, variables, {}, artifacts=())
        if self.ran[-1].code:
            return
        trigger = self.job_of(config, "rig-test")
        assert self.selected(trigger, variables)
        (include,) = trigger["trigger"]["include"]
        child = yaml.safe_load((self.home / "artifacts" / include["job"] / include["artifact"]).read_text())
        inner = variables | {key: self.expand(text, variables) for key, text in trigger["variables"].items()}
        for name in ("rig-build", "rig-test"):
            assert not self.selected(self.job_of(child, name), inner)
        cells = self.job_of(child, "rig-cells")
        assert self.expand(cells["needs"][0]["pipeline"], inner) == "77"
        assert trigger["trigger"]["forward"] == {"pipeline_variables": True}  # RIG_ARGS may be one
        ((parts,),) = (entry.values() for entry in cells["parallel"]["matrix"])
        done = []
        for part in parts:
            self.one(f"rig-cells: [{part}]", cells, inner, {"RIG_PART": part}, artifacts=(cells["needs"][0]["job"],))
            done.append(self.ran[-1].name)
            assert self.ran[-1].code in (0, *cells["allow_failure"]["exit_codes"]), self.ran[-1].output
        report = self.job_of(child, "rig-report")
        assert (report["needs"], report["when"]) == (["rig-cells"], "always")
        self.one("rig-report", report, inner, {}, artifacts=done)

    def job_of(self, config: Mapping[str, Any], name: str) -> dict[str, Any]:
        job = dict(config[name])
        return merged(self.job_of(config, job["extends"]), job) if "extends" in job else job

    def selected(self, job: Mapping[str, Any], variables: Mapping[str, str]) -> bool:
        for rule in job["rules"]:
            match = re.fullmatch(r"\$(\w+)( == null)?", rule["if"])
            assert match
            if (match[1] not in variables) == bool(match[2]):
                return True
        return False

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        return re.sub(r"\$(\w+)", lambda match: variables[match[1]], text)

    def one(
        self,
        name: str,
        job: Mapping[str, Any],
        variables: Mapping[str, str],
        own: Mapping[str, str],
        artifacts: Sequence[str],
    ) -> None:
        self.number += 1
        folder = self.checkout(f"gitlab-{self.number}")
        for other in artifacts:
            shutil.copytree(self.home / "artifacts" / other, folder, dirs_exist_ok=True)
        env = {"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_DIR": str(folder), "CI_JOB_ID": str(self.number)}
        assert self.expand(job["tags"][0], variables) == "kvm"
        script = "\n".join([*job["before_script"], *job["script"]])
        code, output = self.bash(script, folder, dict(variables) | env | dict(own))
        kept = job["artifacts"]
        assert kept["when"] == "always"
        copy(folder, self.home / "artifacts" / name, [*kept["paths"], *kept.get("reports", {}).values()])
        self.ran.append(Ran(name, folder, code, output))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As `extends` does it: mappings are merged, all else is replaced."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


# -- Jenkins ----------------------------------------------------------------------------------------------------------


def groovy(text: str) -> tree_sitter.Tree:
    parser = tree_sitter.Parser(tree_sitter.Language(dekobon_tree_sitter_groovy.language()))
    return parser.parse(text.encode())


def shell_steps(text: str) -> list[str]:
    """Return the scripts of the `sh` steps of a Jenkinsfile in their order."""
    found: list[str] = []

    def look(node: tree_sitter.Node) -> None:
        words = (node.text or b"").decode()
        if node.type == "command_chain" and re.match(r"sh\s+'''", words):
            found.append(re.sub(r"\\(.)", r"\1", words.partition("'''")[2].rpartition("'''")[0]))
            return
        for child in node.children:
            look(child)

    look(groovy(text).root_node)
    return found


@dataclass
class Jenkins(Service):
    """Runs the shell steps of the Jenkinsfile: to build, for each part, and to report."""

    def run(self, file: Path, args: str) -> None:
        build, cells, report = shell_steps(file.read_text())
        first = self.step("build", build, {"RIG_ARGS": args})
        if self.ran[-1].code:
            return
        last = self.checkout("jenkins-report")
        for number, part in enumerate((first / "parts.txt").read_text().strip().split("\n")):
            folder = self.checkout(f"jenkins-{number}")
            shutil.copy(first / "kernels.rig", folder)
            self.step(f"cells {part}", cells, {"RIG_ARGS": args, "RIG_PART": part, "RIG_JOB": str(number)}, folder)
            copy(folder, last, ["parts"], ["parts/*/latest"])
        self.step("report", report, {"RIG_ARGS": args}, last)

    def step(self, name: str, script: str, own: Mapping[str, str], folder: Path | None = None) -> Path:
        folder = folder or self.checkout(f"jenkins-{name}")
        code, output = self.bash(script, folder, {"CI": "true"} | dict(own), sh=True)
        self.ran.append(Ran(name, folder, code, output))
        return folder


def environment(path: str, pythonpath: Path) -> dict[str, str]:
    """A job's environment: nothing of this one but what it takes to find the programs."""
    kept = {name: os.environ[name] for name in ("HOME", "USER", "TMPDIR", "XDG_CACHE_HOME") if name in os.environ}
    return kept | {"PATH": path, "PYTHONPATH": str(pythonpath), "LC_ALL": "C.UTF-8"}


def counted(junit: Path) -> Counter[tuple[str | None, ...]]:
    """What a JUnit says of each case, and that it adds up."""
    top = ET.parse(junit).getroot()
    cases = [(suite, case) for suite in top.iter("testsuite") for case in suite.iter("testcase")]
    bad = {kind: sum(1 for _, case in cases if case.find(kind) is not None) for kind in ("failure", "error")}
    assert (int(top.get("tests", -1)), int(top.get("failures", -1)), int(top.get("errors", -1))) == (
        len(cases), bad["failure"], bad["error"],
    )  # fmt: skip
    return Counter(
        (
            suite.get("name"),
            case.get("classname"),
            case.get("name"),
            "failure" if case.find("failure") is not None else "",
        )
        for suite, case in cases
    )
