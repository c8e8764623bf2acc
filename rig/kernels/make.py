"""Runs make in an object directory, the same way each time, and reads what it says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rig import proc
from rig.clock import Deadline

PINNED = {
    "KBUILD_BUILD_USER": "rig",
    "KBUILD_BUILD_HOST": "rig",
    "KBUILD_BUILD_TIMESTAMP": "2000-01-01",
    "KBUILD_BUILD_VERSION": "1",
    "ARCH": "x86_64",
}
_COMPILED = re.compile(r"^\s+(?:CC|AS|LDS)\s+(?:\[M\]\s+)?(\S+)")
_WARNING = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+)(?::\d+)?: warning: (?P<text>.*)$")
_ERROR = re.compile(
    r"^(?:(?P<file>[^\s:]+):(?P<line>\d+)(?::\d+)?: (?:fatal )?error: (?P<text>.*)"
    r"|(?P<other>.*(?:undefined reference to|multiple definition of|No rule to make target|Error: ).*))$"
)


class Output:
    """What the output of make says."""

    def __init__(self, source: Path, objects: Path, progress: Callable[[int, str], None]) -> None:
        # kbuild writes the path of a neighbour as a relative one
        self._prefixes = (f"{source}/", f"{objects}/", f"../{source.name}/")
        self._progress = progress
        self.compiled: set[str] = set()
        self.warnings: dict[str, set[str]] = {}
        self.errors: tuple[str, ...] = ()
        self.last = ""

    def take(self, line: str) -> None:
        self.last = line.strip() or self.last
        for prefix in self._prefixes:
            line = line.replace(prefix, "")
        if match := _COMPILED.match(line):
            self.compiled.add(re.sub(r"\.o$", ".c", match[1]))
            self._progress(len(self.compiled), match[1])
        elif match := _WARNING.match(line):
            self.warnings.setdefault(match["file"], set()).add(match["text"])
        elif match := _ERROR.match(line):
            text = f"{match['file']}:{match['line']}: {match['text']}" if match["file"] else match["other"]
            self.errors = (*self.errors, text)


def make_argv(source: Path, objects: Path, *words: str) -> tuple[str, ...]:
    """Return the command line of every make in an object directory: another compiler would compile all of it anew."""
    cc = "ccache gcc" if shutil.which("ccache") else "gcc"
    # An empty LOCALVERSION: the release must not depend on what git says of the checkout ("6.12.1+").
    return ("make", "-C", str(source), f"O={objects}", f"CC={cc}", "LOCALVERSION=", *words)


def make_environment(objects: Path) -> dict[str, str]:
    """Return the environment of every make in an object directory."""
    return PINNED | {"CCACHE_BASEDIR": str(objects.parent)}


def stream(
    argv: Sequence[str | Path], take: Callable[[str], None], *, log: Path, env: Mapping[str, str], deadline: Deadline
) -> int | None:
    """Run `argv`, giving each line of output to `take` and to the log; returns its status, None past the deadline."""
    import selectors

    with (
        log.open("ab") as sink,
        proc.Child(argv, env=env, stdout=proc.PIPE, stderr=proc.STDOUT) as child,
        selectors.DefaultSelector() as selector,
    ):
        pipe = child.popen.stdout
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ)
        rest = b""
        while not deadline.expired:
            if not selector.select(min(1.0, deadline.remaining)):
                if child.poll() is not None:
                    break  # a grandchild holds the pipe open
                continue
            chunk = pipe.read(1 << 16)
            if not chunk:
                break
            sink.write(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                take(line.decode(errors="replace"))
        take(rest.decode(errors="replace"))
        return child.wait(deadline.remaining)
