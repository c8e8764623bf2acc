"""The memory-management selftests of the base tree, built as static programs that can be put into the guest image.

Not through their own Makefile, which wants installed headers and libraries that a guest would need as well: each test
is one C file beside a few helpers, and is compiled with the tree's own user-space headers. What does not compile on
this host (for want of a library's headers, say) is left out, and named.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rig import proc
from rig.errors import HostError
from rig.store import Store, digest
from rig.trees.source import repository

#: What of the tree it takes: the tests, and what `make headers` makes the user-space headers from.
TREE = (
    *("Makefile", "Kbuild", "scripts", "include", "arch/x86", "usr", "mm/gup_test.h", "lib/test_hmm_uapi.h"),
    *("tools/include", "tools/scripts", "tools/testing/selftests/mm", "tools/testing/selftests/kselftest.h"),
    "tools/testing/selftests/kselftest_harness.h",
)
TESTS = "tools/testing/selftests/mm"
HELPERS = ("vm_util", "thp_settings", "uffd-common")
FLAGS = ("-static", "-O2", "-s", "-w", "-no-pie", "-mxsave", "-D_GNU_SOURCE=", "-U_FORTIFY_SOURCE")
LIBRARIES = ("-lnuma", "-lcap", "-lrt", "-lpthread", "-lm")
LEFT_OUT = "left-out.json"


def build(commit: str, compiler: str, store: Store, say: Callable[[str], None]) -> tuple[tuple[Path, ...], list[str]]:
    """Return the programs, from the store, and the names of the tests that do not compile on this host.

    Raises HostError when the tree has no such tests, or none compiles.
    """
    key = digest("selftests-1", commit, compiler, *FLAGS, *LIBRARIES)
    stored = store.get("selftests", key)
    if stored is None:
        say("building the memory-management selftests of the base tree")
        stored = store.publish("selftests", key, partial(_fill, commit, store))
    programs = tuple(sorted(path for path in (stored / "bin").iterdir()))
    return programs, json.loads((stored / LEFT_OUT).read_text())


def _fill(commit: str, store: Store, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="selftests-", dir=store.root / "tmp") as name:
        tree = Path(name)
        git = repository(store)
        there = [path for path in TREE if git.run("cat-file", "-e", f"{commit}:{path}").ok]
        if TESTS not in there:
            raise HostError(f"the base tree has no {TESTS}")
        git("archive", f"--output={tree / 'tree.tar'}", commit, *there)
        proc.check(["tar", "-xf", tree / "tree.tar", "-C", tree], timeout=300)
        proc.check(["make", "-s", "-C", tree, "headers"], timeout=1200)
        (tree / TESTS / "local_config.h").touch()
        (target / "bin").mkdir()
        left_out = [
            test.stem for test in sorted((tree / TESTS).glob("*.c")) if not _compile(tree, test, target / "bin")
        ]
        left_out = [name for name in left_out if name not in HELPERS]
        if not any((target / "bin").iterdir()):
            raise HostError("none of the selftests compiles on this host")
        (target / LEFT_OUT).write_text(json.dumps(left_out))


def _compile(tree: Path, test: Path, target: Path) -> bool:
    """Compile one test; returns whether it could be. Without a library's headers others still can, so each is tried."""
    if test.stem in HELPERS:
        return False
    helpers = [*HELPERS[:2], *([HELPERS[2]] if test.stem.startswith("uffd-") else [])]
    includes: list[str | Path] = ["-I", tree, "-I", test.parent.parent, "-include", test.parent.parent / "kselftest.h"]
    includes += ["-isystem", tree / "usr/include", "-isystem", tree / "tools/include/uapi"]
    sources = [test, *(test.parent / f"{name}.c" for name in helpers)]
    wanted = [word for word in LIBRARIES if word not in ("-lnuma", "-lcap") or _mentions(test, word)]
    done = proc.run(["gcc", *FLAGS, *includes, "-o", target / test.stem, *sources, *wanted], timeout=300)
    return done.ok


def _mentions(test: Path, library: str) -> bool:
    header = {"-lnuma": "<numa.h>", "-lcap": "<sys/capability.h>"}[library]
    return header in test.read_text(errors="replace")
