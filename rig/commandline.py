"""The words of the command line: flags, goals, a command with its arguments, and KEY=VALUE overrides.

Only argparse is imported here, so that `rig --help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import __version__
from rig.errors import ConfigError

GOALS = ("apply", "build", "test", "report")
COMMANDS = (
    "list",
    "doctor",
    "shell",
    "rerun",
    "scan",
    "compare",
    "bisect",
    "selfcheck",
    "bench",
    "export",
    "import",
    "merge",
    "check-series",
    "clean",
)
BISECT_KEYS = ("signature", "confidence", "limit", "looks", "good", "bad", "count")
BENCH_KEYS = (
    *("cases", "counted", "cpus", "faults", "filesystems", "level", "pairs", "tests", "threshold", "will_it_scale"),
)
SELFCHECK_KEYS = ("limit", "first", "budget", "seeds", "good_trials", "threshold")
#: Flags that are followed by a value.
VALUED = ("-f", "--file", "-C", "--directory", "-j", "--jobs")

DESCRIPTION = """\
Apply a kernel patch series, build it, boot it under QEMU, stress it, and say what it breaks.

goals, as make has them (default: test); each does what is not up to date, and says so:
  apply             put the series onto its base tree; every prefix becomes a commit
  build             build the base and the patched kernel in every flavour
  test              boot them, run the workloads, judge; results/latest/junit.xml
  report [RUN]      write all reports of the latest run, or of the one whose folder RUN is, again: report.html,
                    junit.xml, summary.md and the rest

commands:
  list              the cells that the configuration makes (--json for programs); --explain [CELL...]: which oracles
                    see the races that each drives, and what nobody sees; --races: all races and oracles;
                    --ci github|gitlab|jenkins: the jobs of a pipeline, each with its part=; at most parts=N
  doctor            what this host lacks, and how to mend it
  shell CELL        boot the patched kernel of a cell and give a shell in it (side=base: the base)
  rerun DIR         run the trial whose folder DIR is once more, as it was; from=FILE: on the kernels of a pipeline
  compare A B       two runs, yesterday's and today's or two versions of a series: what is new, gone, worse or better;
                    two of `rig test` or two of `rig bench`; exits with 1 when something is new or worse, of a bench
                    beyond its threshold (--json for programs)
  bisect            which patch of the series did it? With --counts: which one costs what? `rig bisect --help` says more
  scan FILE...      what the kernel complained about in console logs, - for standard input; see `rig scan --help`
  selfcheck [NAME]  how good is the rig? hunt the bad controls, try the good ones and the base, crash kernels on
                    purpose; NAME: only the controls that match, base or console; limit=SECONDS budget=SECONDS
                    seeds=N good_trials=N threshold=SHARE select=NAME cells=GLOB
  bench [NAME]      what does the series buy, and at what price? counts and times against the base (against=SERIES);
                    NAME: series of patches/, costs/* or null (the base with itself), all in one comparison;
                    cpus=[1, 4] cases=GLOB filesystems=F counted=PAIRS pairs=PAIRS level=P threshold=SHARE faults=N
                    will_it_scale=PATH tests=GLOB: time the tests of that benchmark, too
  export FILE       put the kernels of the series into one archive, built if need be, with the hashes of everything
  import FILE       verify such an archive and take its kernels into the store; `rig test from=FILE` needs neither
                    the series nor its base besides, and builds no kernel
  merge RUN...      fold the runs of the parts of one run (rig test part=…) into one; RUN: a run's folder, or a folder
                    of such. A cell that no part has counts as lost
  check-series      as test, but a finished run of just this is not run again; --b4: read a mail on standard input and
                    print JSON, as b4 wants it of b4.review-series-check-cmd and b4.review-perpatch-check-cmd
  clean             empty the store of kernels, trees and images

configuration: rig.yaml, and on the command line KEY=VALUE for any key of it:
  series=PATH       a folder of patches, an mbox (a whole thread as well), one patch, git:REPO#A..B, or with b4 from
                    the lists' archive lore:MESSAGE-ID or b4:CHANGE-ID
  series=[A, B]     several of these, one on top of the other
  kernel.source=S   debian:PACKAGE, git:URL#REF, tarball:FILE or dir:PATH
  select=GLOB       only cells whose id (flavour/machine/workload/filesystem) or a part of it matches
  budget=SECONDS    workload time per trial
  trials=N          trials per cell, on base and patched alike; trials={min: 2, max: 32}: more where it is in doubt
  sides=patched     only the patched kernel; then there is nothing to compare with
  part=K/N          only the K-th of N parts of the cells, or only those of some GLOB, for rig merge
  from=FILE         use the kernels of an archive of rig export
  out=DIR           where the results go
  machines.smp4.cpus=8, accel=tcg, timeouts.boot=600, store=DIR, ...
"""
EPILOG = """\
examples:
  rig                                            test the series of rig.yaml
  rig test series=my-patches select='debug/*'    another series, debug kernels only
  rig build series=my.mbox -j16                  does it build?
  rig -n test                                    what would be done?
  rig shell debug/smp4/truncate-race/xfs         look around in the machine

exit codes: 0 passed, 1 the series failed (does not apply or build, or a regression was found), 2 usage or
configuration, 3 the host failed, 4 no verdict (nothing conclusive was seen, or it may be luck), 130 interrupted: the
same command resumes
"""


@dataclass(frozen=True, slots=True)
class Words:
    """The command line, sorted out."""

    goals: tuple[str, ...]
    command: str | None
    arguments: tuple[str, ...]
    overrides: tuple[str, ...]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags; the words are sorted out by `sort_words`."""
    made = argparse.ArgumentParser(
        prog="rig",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="rig [flags] [goal ...] [KEY=VALUE ...]\n       rig [flags] command [argument ...] [KEY=VALUE ...]",
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    made.add_argument("-f", "--file", type=Path, metavar="FILE", help="the configuration (default: rig.yaml)")
    made.add_argument("-C", "--directory", type=Path, metavar="DIR", help="work as if started in DIR")
    made.add_argument("-j", "--jobs", type=int, metavar="N", help="jobs at once (default: one per CPU)")
    made.add_argument(
        "-k", "--keep-going", action="store_true", help="build the other flavours when one does not build"
    )
    made.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    made.add_argument(
        "-B", "--always-make", action="store_true", help="build kernels that are up to date, resume no run"
    )
    made.add_argument("-s", "--silent", "--quiet", action="store_true", help="only the verdict and errors")
    made.add_argument("--explain", action="store_true", help="list: who sees the races of each cell")
    made.add_argument("--races", action="store_true", help="list: all races and oracles, and what they need")
    made.add_argument(
        "--json",
        action="store_true",
        help="list, test, compare, bisect, selfcheck, bench: print JSON",
    )
    made.add_argument("--ci", metavar="FORM", help="list: the jobs of a pipeline, for github, gitlab or jenkins")
    made.add_argument("--b4", action="store_true", help="check-series: speak to b4")
    made.add_argument(
        "--every-prefix", action="store_true", help="bisect: build, boot and try each prefix, also if the tip is clean"
    )
    made.add_argument("--counts", action="store_true", help="bisect: hunt what the series costs, in exact counts")
    made.add_argument(
        "--bisect", action="store_true", help="test: exit as `git bisect run` wants it, see `rig bisect --help`"
    )
    made.add_argument("--console", action="store_true", help="selfcheck: only crash kernels on purpose")
    made.add_argument("--version", action="version", version=f"rig {__version__}")
    return made


def sort_words(words: Sequence[str]) -> Words:
    """Tell goals, a command with its arguments and overrides apart; raises ConfigError for what is none of them."""
    overrides = tuple(word for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if plain and plain[0] in COMMANDS:
        return Words((), plain[0], tuple(plain[1:]), overrides)
    if plain and plain[0] == "report" and not set(plain[1:]) <= set(GOALS):
        return Words(("report",), None, tuple(plain[1:]), overrides)
    for word in plain:
        if word not in GOALS:
            import difflib

            close = difflib.get_close_matches(word, GOALS + COMMANDS, n=1)
            raise ConfigError(
                f"{word!r} is neither a goal nor a command" + (f"; did you mean {close[0]!r}?" if close else ""),
                hint=f"goals: {', '.join(GOALS)}; commands: {', '.join(COMMANDS)}; see `rig --help`",
            )
    return Words(tuple(dict.fromkeys(plain)) or ("test",), None, (), overrides)


def scan_words(argv: Sequence[str]) -> Sequence[str] | None:
    """Return the words after `scan` if that is the command. Its files may have any name, so it sorts its own words."""
    index = 0
    while index < len(argv) and argv[index].startswith("-") and argv[index] != "-":
        index += 2 if argv[index] in VALUED else 1
    return argv[index + 1 :] if argv[index : index + 1] == ["scan"] else None


def taken(key: str, overrides: list[str]) -> str | None:
    """Take the override of a word that is no key of the configuration, and return its value."""
    found = next((word for word in overrides if word.startswith(f"{key}=")), None)
    if found is None:
        return None
    overrides.remove(found)
    return found.partition("=")[2]


def selfcheck_words(words: Words, *, console: bool) -> tuple[tuple[str, ...], list[str]]:
    """Return which controls a selfcheck is to run, and the overrides with its own keys below `selfcheck`.

    `select=` picks controls here, and `cells=` what it picks elsewhere.
    """
    names, overrides = [*words.arguments, *(["console"] if console else [])], []
    for word in words.overrides:
        key, _, value = word.partition("=")
        if key == "select":
            names += value.split()
        elif key == "cells":
            overrides.append(f"select={value}")
        else:
            overrides.append(f"selfcheck.{word}" if key in SELFCHECK_KEYS else word)
    return tuple(names), overrides


def bisect_words(words: Words, *, every_prefix: bool, counts: bool = False) -> list[str]:
    """Return the overrides of a bisection, its own keys below `bisect`; raises ConfigError for any other word.

    With `counts`, or a word that picks counts, a bench's own keys go below `bench`.
    """
    if words.arguments:
        raise ConfigError(
            f"bisect takes no {words.arguments[0]!r}", hint="rig bisect series=…; see `rig bisect --help`"
        )
    counts = counts or any(word.startswith(("count=", "case=")) for word in words.overrides)
    places = {key: f"bench.{key}" for key in BENCH_KEYS} | {"case": "bench.cases"} if counts else {}
    places |= {key: f"bisect.{key}" for key in BISECT_KEYS}
    overrides = []
    for word in words.overrides:
        key, _, value = word.partition("=")
        overrides.append(f"{places.get(key, key)}={value}")
    overrides += ["bisect.every_prefix=true"] if every_prefix else []
    return [*overrides, *(["bisect.counts=true"] if counts else [])]


def tree_words(words: Words) -> list[str]:
    """Return the overrides with which `rig test --bisect` tries a tree as it is, or with the series that is named."""
    if words.command or words.goals != ("test",):
        raise ConfigError("--bisect goes with `rig test`", hint="see `rig bisect --help`")
    overrides = [f"bisect.{word}" if word.startswith("signature=") else word for word in words.overrides]
    named = any(word.startswith("series=") for word in words.overrides)
    return [*overrides, *(["sides=[patched]"] if named else ["series=[]", "sides=[base]"])]


def words_again(flags: argparse.Namespace) -> list[str]:
    """Return the flags that a command needs to be the same one again."""
    again = ["-C", str(flags.directory)] if flags.directory else []
    again += ["-f", str(flags.file)] if flags.file else []
    return again + [f"--{name}" for name in ("every-prefix", "counts") if getattr(flags, name.replace("-", "_"))]


def bench_words(overrides: Sequence[str]) -> tuple[list[str], str]:
    """Return the overrides with those of a bench below `bench`, and the series that it is to compare with."""
    against = [word.partition("=")[2] for word in overrides if word.startswith("against=")]
    kept = [word for word in overrides if not word.startswith("against=")]
    own = [f"bench.{word}" if word.partition("=")[0] in BENCH_KEYS else word for word in kept]
    return own, against[-1] if against else ""
