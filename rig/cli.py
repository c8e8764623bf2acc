"""The command line: make-style goals and KEY=VALUE overrides, and a few commands beside them.

What a goal needs is imported when it is run, so that `rig --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rig.commandline import (
    Words,
    bench_words,
    bisect_words,
    parser,
    scan_words,
    selfcheck_words,
    sort_words,
    taken,
    tree_words,
    words_again,
)
from rig.errors import ConfigError, RigError

if TYPE_CHECKING:
    from rig.front.ui import Ui
    from rig.pipeline import Options
    from rig.settings.config import Config

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what is not a bug of the rig ends in one sentence."""
    words = sys.argv[1:] if argv is None else list(argv)
    if "--bisect" in words:
        from rig.bisection import gitrun

        return gitrun.guarded(lambda: _main(words))
    if "bisect" in words and {"-h", "--help"} & set(words):
        from rig.bisection.helptext import HELP

        print(HELP, end="")
        return 0
    return _main(words)


def _main(argv: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: machines are ended, what was done is kept
    with_hup = getattr(signal, "SIGHUP", None)
    if with_hup is not None and signal.getsignal(with_hup) is signal.SIG_DFL:
        signal.signal(with_hup, _interrupt)
    try:
        argv = sys.argv[1:] if argv is None else argv
        scan = scan_words(argv)
        flags = parser().parse_intermixed_args(argv if scan is None else argv[: -len(scan) - 1])
        if scan is not None:
            return _scan(flags, scan)
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


def _start(flags: argparse.Namespace) -> Path:
    if flags.directory is None:
        return Path.cwd()
    directory: Path = flags.directory
    if not directory.is_dir():
        raise ConfigError(f"-C {directory}: no such folder")
    return directory.resolve()


def _scan(flags: argparse.Namespace, words: Sequence[str]) -> int:
    from rig.front import scan

    return scan.main(words, directory=_start(flags), as_json=flags.json)


def _run(flags: argparse.Namespace, words: Words) -> int:
    if flags.jobs is not None and flags.jobs < 1:
        raise ConfigError(f"-j {flags.jobs}: expected at least 1")
    start = _start(flags)
    from rig import commands, goals
    from rig.front.ui import Ui
    from rig.jobs import ci
    from rig.pipeline import Options
    from rig.settings.reading import load

    ui = Ui(quiet=flags.silent)
    ci.tame_streams(ui.service)
    overrides = list(words.overrides)
    if words.command == "compare":
        from rig.comparison import compare

        if overrides:
            raise ConfigError(f"compare takes no KEY=VALUE, but {overrides[0]}", hint=compare.USAGE)
        places = words.arguments if start == Path.cwd() else [str(start / word) for word in words.arguments]
        return compare.run(places, as_json=flags.json)
    if words.command == "rerun":
        source = taken("from", overrides)
        place = start / source if source else None
        return commands.rerun(words.arguments, overrides, ui, jobs=_jobs(flags), source=place)
    names = tuple(words.arguments)
    if words.goals and names:
        from rig.runs import rundir

        if len(names) > 1:
            raise ConfigError("usage: rig report [RUN]", hint="RUN is the folder of a run: results/<run>")
        return goals.report(rundir.named(start, names[0]), Ui(quiet=flags.silent), as_json=flags.json)
    if words.command == "selfcheck":
        names, overrides = selfcheck_words(words, console=flags.console)
    against = ""
    if words.command == "bench":
        overrides, against = bench_words(overrides)
    if words.command == "bisect":
        overrides = bisect_words(words, every_prefix=flags.every_prefix, counts=flags.counts)
    if flags.bisect:
        overrides = tree_words(words)
    side = taken("side", overrides) if words.command == "shell" else None
    source = taken("from", overrides)
    file = start / flags.file if flags.file else start / "rig.yaml"
    config = load(file, overrides)
    options = Options(
        jobs=_jobs(flags),
        keep_going=flags.keep_going,
        dry_run=flags.dry_run,
        always=flags.always_make,
        rig=f"{shlex.quote(sys.executable)} -m rig",
        overrides=words.overrides,
    )
    job = _Job(flags, words, names, side or "patched", against, start, file, config, options, ui)
    try:
        if source is None:
            return _dispatch(job)
        from rig.jobs import archive

        with archive.used(config, start / source, ui) as config:
            return _dispatch(replace(job, config=config))
    except RigError as error:
        if ui.service is not ci.Service.NONE and (kept := ci.keep_failure(config.results, error)):
            error.evidence = kept  # what it pointed to may be gone with the job
        raise


@dataclass(frozen=True, slots=True)
class _Job:
    """All that a goal or a command may want to know."""

    flags: argparse.Namespace
    words: Words
    names: tuple[str, ...]
    side: str
    against: str  # the series that a bench compares with
    start: Path  # relative paths on the command line are meant from here
    file: Path
    config: Config
    options: Options
    ui: Ui


def _dispatch(job: _Job) -> int:
    from rig import commands, goals

    flags, words, config, options, ui = job.flags, job.words, job.config, job.options, job.ui
    paths = tuple(job.start / word for word in words.arguments)
    if words.command == "list" and flags.races:
        return commands.list_races(config)
    if words.command == "list" and flags.explain:
        return commands.explain_cells(config, words.arguments)
    if words.command == "list":
        return commands.list_cells(config, as_json=flags.json, form=flags.ci)
    if words.command == "doctor":
        return commands.doctor(config)
    if words.command == "clean":
        return commands.clean(config, ui)
    if words.command == "export":
        return commands.export(config, options, ui, paths)
    if words.command == "import":
        return commands.take_in(config, ui, paths)
    if words.command == "merge":
        return commands.merge(config, ui, paths, as_json=flags.json)
    if words.command == "check-series":
        from rig.jobs import checkseries

        named = any(word.startswith("series=") for word in words.overrides)
        return checkseries.run(config, options, ui, b4=flags.b4, named=named, as_json=flags.json)
    if words.command == "selfcheck":
        from rig.detection import selfcheck

        return selfcheck.run(job.file.parent, config, options, ui, job.names, as_json=flags.json)
    if words.command == "bisect":
        from rig.bisection import bisect, costbisect

        command = shlex.join(["rig", *words_again(flags), "bisect", *words.overrides])
        run = costbisect.run if config.bisect.counts else bisect.run
        return run(config, options, ui, command=command, as_json=flags.json)
    if words.command == "bench":
        from rig.costs import bench

        return bench.run(job.file.parent, config, options, ui, job.names, against=job.against, as_json=flags.json)
    if words.command == "shell":
        return commands.shell(config, options, ui, words.arguments, job.side)
    if flags.bisect:
        from rig.bisection import gitrun

        return gitrun.run(config, options, ui)
    return goals.run(words.goals, config, options, ui, as_json=flags.json)


def _jobs(flags: argparse.Namespace) -> int:
    return flags.jobs or len(os.sched_getaffinity(0))
