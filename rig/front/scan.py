"""`rig scan`: what the kernel complained about in console logs, for people and for programs."""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rig.errors import ConfigError, HostError
from rig.model import Finding
from rig.splats.scanner import CHUNK, Scanner, in_order
from rig.splats.symbols import Symboliser

NOTHING, SOMETHING = 0, 1
STDIN = "-"

DESCRIPTION = """\
Say what the kernel complained about in console logs: crashes, warnings, lockdep and sanitizer reports, stalls, leaks.

FILE is what a serial console, dmesg, journalctl -k, syslog or netconsole wrote, with or without time stamps; gzip, xz
and bzip2 are unpacked. What programs wrote in between accuses nobody. Logs of any size are read as they stream by.
"""
EPILOG = """\
for each finding:
  kind          kasan kmsan kcsan ubsan bug warning oops gpf page-fault panic lockdep rcu-stall soft-lockup hard-lockup
                hung-task bad-page bad-rss leak list-corruption refcount divide stack boot-failure other
  title         one line, the same for every sighting of the bug: KASAN: slab-use-after-free Read in foo
  function      the first frame that is to blame: neither allocator nor lock nor the reporting itself; null if not known
  signature     what two sightings of one bug have in common, without addresses and numbers
  first_line, last_line   of FILE, counted from 1
  corrupted     the report is cut short or mixed with other output: title and function are a guess
  text          the report as it was printed; with --vmlinux also source lines, and what was inlined
  fatal, echo   the kernel cannot be trusted to go on after it; it came after a fatal one, which most likely caused it

examples:
  rig scan console.log                         what happened?
  dmesg | rig scan -                           on this very machine
  rig scan --vmlinux build/vmlinux console.log with source lines (the kernel needs CONFIG_DEBUG_INFO)
  rig scan --brief results/latest/trials/*/*/*/*/*/*/console.log
  rig scan --json *.log.xz | jq -r '.[] | select(.echo | not) | .title'

exit codes: 0 nothing found, 1 something found, 2 usage (also: FILE cannot be read), 3 the host failed
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of what follows `rig scan`."""
    made = argparse.ArgumentParser(
        prog="rig scan", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("files", nargs="+", metavar="FILE", help="a console log; - for standard input")
    made.add_argument("--json", action="store_true", help="print one JSON array of objects, in console order")
    made.add_argument("--brief", action="store_true", help="one line per finding, without its text")
    made.add_argument("--vmlinux", type=Path, metavar="V", help="the kernel's ELF file, for source lines")
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What was found in one log."""

    name: str
    findings: tuple[Finding, ...]
    lines: int
    size: int  # bytes, unpacked


def main(argv: Sequence[str], *, directory: Path, as_json: bool = False) -> int:
    """Run `rig scan` with the words after it; relative files are those of `directory`.

    Returns 0 when nothing was found and 1 when something was; raises ConfigError for what cannot be read.
    """
    flags = parser().parse_intermixed_args(argv)
    as_json = as_json or flags.json
    for name in flags.files:
        _check(directory, name)
    if flags.files.count(STDIN) > 1:
        raise ConfigError("standard input can be read only once", hint="give - once")
    with ExitStack() as stack:
        annotate: Callable[[str], str] | None = None
        if flags.vmlinux is not None:
            symbols = stack.enter_context(Symboliser(directory / flags.vmlinux))
            annotate = symbols.annotate
            if not symbols.has_lines:
                print(
                    f"rig: {flags.vmlinux} has no debug information, so there are no source lines\n"
                    "  hint: build the kernel with CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y",
                    file=sys.stderr,
                )
        logs = (_annotated(scan(directory, name), annotate) for name in flags.files)
        if as_json:
            return _print_json(logs)
        from rig.front.scanprint import print_logs  # rich is for people only

        return print_logs(logs, brief=flags.brief)


def _check(directory: Path, name: str) -> None:
    """Raise ConfigError for what is no file that can be read."""
    if name == STDIN:
        return
    path = directory / name
    if path.is_dir():
        raise ConfigError(f"{name}: a folder, not a console log", hint=f"name the logs in it: rig scan {name}/*.log")
    if not path.exists():
        raise ConfigError(f"{name}: no such file", hint="name a console log, or - for standard input")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{name}: no permission to read it")


def scan(directory: Path, name: str) -> Scanned:
    """Return what is in the log `name` of `directory` (`-`: standard input); raises HostError when reading fails."""
    scanner = Scanner()
    findings: list[Finding] = []
    size = 0
    try:
        with ExitStack() as stack:
            file = _stdin() if name == STDIN else stack.enter_context((directory / name).open("rb"))
            for data in chunks(file):
                findings += scanner.feed(data)
                size += len(data)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise HostError(f"{name}: the compressed data is damaged after {size} bytes: {error}") from error
    except OSError as error:
        raise HostError(f"{name}: cannot be read: {error.strerror or error}") from error
    findings += scanner.finish()
    called = "standard input" if name == STDIN else name
    return Scanned(name=called, findings=in_order(findings), lines=scanner.lines, size=size)


def _stdin() -> io.BufferedReader:
    assert isinstance(sys.stdin.buffer, io.BufferedReader)
    return sys.stdin.buffer


def chunks(file: io.BufferedReader) -> Iterator[bytes]:
    """Yield the bytes of a log piece by piece as they come, unpacked if they are gzip, xz or bzip2."""
    magic = file.peek(6)[:6]
    opened: io.BufferedReader | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File = file
    if magic.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=file)
    elif magic == b"\xfd7zXZ\0":
        opened = lzma.LZMAFile(file)  # noqa: SIM115  # it closes nothing: the file is the caller's
    elif magic.startswith(b"BZh"):
        opened = bz2.BZ2File(file)
    while data := opened.read1(CHUNK):
        yield data


def _annotated(log: Scanned, annotate: Callable[[str], str] | None) -> Scanned:
    if annotate is None:
        return log
    return replace(log, findings=tuple(replace(one, text=annotate(one.text)) for one in log.findings))


def to_json(log: Scanned, finding: Finding) -> dict[str, Any]:
    """Return a finding as it stands in the JSON output."""
    return {
        "file": log.name,
        "kind": finding.kind,
        "title": finding.title,
        "function": finding.function,
        "signature": finding.signature,
        "first_line": finding.first_line,
        "last_line": finding.last_line,
        "corrupted": finding.corrupted,
        "fatal": finding.fatal,
        "echo": finding.echo,
        "text": finding.text,
    }


def _print_json(logs: Iterator[Scanned]) -> int:
    found = [to_json(log, finding) for log in logs for finding in log.findings]
    json.dump(found, sys.stdout, indent=1)
    print()
    return SOMETHING if found else NOTHING
