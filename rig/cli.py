"""The command line: make-style goals and KEY=VALUE overrides, and a few commands beside them.

Only argparse is imported here; what a goal needs is imported when it is run, so that `rig --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import __version__
from rig.errors import ConfigError, RigError

GOALS = ("apply", "build", "test", "report")
COMMANDS = ("list", "doctor", "shell", "rerun", "selfcheck", "bench", "clean")
BENCH_KEYS = ("cases", "counted", "cpus", "faults", "filesystems", "level", "pairs", "threshold")
SELFCHECK_KEYS = ("limit", "first", "budget", "seeds", "good_trials", "threshold")
INTERRUPTED = 130

DESCRIPTION = """\
Apply a kernel patch series, build it, boot it under QEMU, stress it, and say what it breaks.

goals, as make has them (default: test); each does what is not up to date, and says so:
  apply             put the series onto its base tree; every prefix becomes a commit
  build             build the base and the patched kernel in every flavour
  test              boot them, run the workloads, judge; results/latest/junit.xml
  report            write the reports of the latest run again

commands:
  list              the cells that the configuration makes (--json for programs); --explain [CELL...]: which oracles
                    see the races that each drives, and what nobody sees; --races: all races and oracles
  doctor            what this host lacks, and how to mend it
  shell CELL        boot the patched kernel of a cell and give a shell in it (side=base: the base)
  rerun DIR         run the trial whose folder DIR is once more, as it was
  selfcheck [NAME]  how good is the rig? hunt the bad controls, try the good ones and the base, crash kernels on
                    purpose; NAME: only the controls that match, base or console; limit=SECONDS budget=SECONDS
                    seeds=N good_trials=N threshold=SHARE select=NAME cells=GLOB
  bench [NAME]      what does the series buy, and at what price? counts and times against the base (against=SERIES);
                    NAME: series of patches/, costs/* or null (the base with itself), all in one comparison;
                    cpus=[1, 4] cases=GLOB filesystems=F counted=PAIRS pairs=PAIRS level=P threshold=SHARE faults=N
  clean             empty the store of kernels, trees and images

configuration: rig.yaml, and on the command line KEY=VALUE for any key of it:
  series=PATH       a folder of patches, an mbox, one patch, or git:REPO#A..B
  series=[A, B]     several of these, one on top of the other
  kernel.source=S   debian:PACKAGE, git:URL#REF, tarball:FILE or dir:PATH
  select=GLOB       only cells whose id (flavour/machine/workload/filesystem) or a part of it matches
  budget=SECONDS    workload time per trial
  trials=N          trials per cell, on base and patched alike
  sides=patched     only the patched kernel; then there is nothing to compare with
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
configuration, 3 the host failed, 4 no verdict (nothing conclusive was seen), 130 interrupted: the same command resumes
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
        "--json", action="store_true", help="list, test, selfcheck and bench: print JSON on standard output"
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
    for word in plain:
        if word not in GOALS:
            import difflib

            close = difflib.get_close_matches(word, GOALS + COMMANDS, n=1)
            raise ConfigError(
                f"{word!r} is neither a goal nor a command" + (f"; did you mean {close[0]!r}?" if close else ""),
                hint=f"goals: {', '.join(GOALS)}; commands: {', '.join(COMMANDS)}; see `rig --help`",
            )
    return Words(tuple(dict.fromkeys(plain)) or ("test",), None, (), overrides)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what is not a bug of the rig ends in one sentence."""
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: machines are ended, what was done is kept
    with_hup = getattr(signal, "SIGHUP", None)
    if with_hup is not None and signal.getsignal(with_hup) is signal.SIG_DFL:
        signal.signal(with_hup, _interrupt)
    try:
        flags = parser().parse_intermixed_args(argv)
        words = sort_words(flags.words)
        return _run(flags, words)
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("rig: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would complain once more
        return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _run(flags: argparse.Namespace, words: Words) -> int:
    if flags.jobs is not None and flags.jobs < 1:
        raise ConfigError(f"-j {flags.jobs}: expected at least 1")
    start = Path.cwd()
    if flags.directory is not None:
        if not flags.directory.is_dir():
            raise ConfigError(f"-C {flags.directory}: no such folder")
        start = flags.directory.resolve()
    from rig import commands, goals
    from rig.config import load
    from rig.pipeline import Options
    from rig.ui import Ui

    overrides = list(words.overrides)
    if words.command == "rerun":
        return commands.rerun(words.arguments, overrides, Ui(quiet=flags.silent), jobs=_jobs(flags))
    names = tuple(words.arguments)
    if words.command == "selfcheck":
        names, overrides = selfcheck_words(words, console=flags.console)
    against = ""
    if words.command == "bench":
        overrides, against = bench_words(overrides)
    side = next((word for word in overrides if word.startswith("side=")), None) if words.command == "shell" else None
    if side:
        overrides.remove(side)
    file = start / flags.file if flags.file else start / "rig.yaml"
    config = load(file, overrides)
    options = Options(
        jobs=_jobs(flags),
        keep_going=flags.keep_going,
        dry_run=flags.dry_run,
        always=flags.always_make,
        rig=f"{shlex.quote(sys.executable)} -m rig",
    )
    ui = Ui(quiet=flags.silent)
    if words.command == "list" and flags.races:
        return commands.list_races(config)
    if words.command == "list" and flags.explain:
        return commands.explain_cells(config, words.arguments)
    if words.command == "list":
        return commands.list_cells(config, as_json=flags.json)
    if words.command == "doctor":
        return commands.doctor(config)
    if words.command == "clean":
        return commands.clean(config, ui)
    if words.command == "selfcheck":
        from rig import selfcheck

        return selfcheck.run(file.parent, config, options, ui, names, as_json=flags.json)
    if words.command == "bench":
        from rig import benchrun

        return benchrun.run(file.parent, config, options, ui, names, against=against, as_json=flags.json)
    if words.command == "shell":
        return commands.shell(config, options, ui, words.arguments, (side or "side=patched").partition("=")[2])
    return goals.run(words.goals, config, options, ui, as_json=flags.json)


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


def bench_words(overrides: Sequence[str]) -> tuple[list[str], str]:
    """Return the overrides with those of a bench below `bench`, and the series that it is to compare with."""
    against = [word.partition("=")[2] for word in overrides if word.startswith("against=")]
    kept = [word for word in overrides if not word.startswith("against=")]
    own = [f"bench.{word}" if word.partition("=")[0] in BENCH_KEYS else word for word in kept]
    return own, against[-1] if against else ""


def _jobs(flags: argparse.Namespace) -> int:
    return flags.jobs or len(os.sched_getaffinity(0))
