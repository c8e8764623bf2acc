"""Source lines and inlined frames for a call trace, from the debug information of a vmlinux or of object files.

One addr2line stays running for each file that is asked, and only for as long as there is something to ask. A frame is
looked up by its symbol and offset, so that KASLR does not matter, and only where the kernel that printed it has the
symbol in the same size: lines of another build would be worse than none. Return addresses are looked up one byte
earlier, as the instruction after a call may belong to the next line.
"""

from __future__ import annotations

import posixpath
import re
import select
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from rig.clock import Deadline
from rig.errors import ConfigError, HostError
from rig.proc import DEVNULL, PIPE, Child
from rig.splats.lines import take_apart
from rig.touches.functions import Symbol, Symbols, read_symbols
from rig.trials.signature import plain_function

SECONDS = 120.0  # for the frames of one text; addr2line takes seconds to read a large vmlinux once
MAX_FRAMES = 300  # looked up in one text
MAX_DEPTH = 32  # inlined frames of one address
MAX_KNOWN = 20_000  # addresses whose places are remembered
#: A size that the kernel prints reaches to the next symbol, so it holds the padding, too. Bytes.
PADDING = 64
SENTINEL = (1 << 64) - 1  # an address that is nowhere

_FRAME = re.compile(
    r"(?P<lead>\s*(?:RIP: 0010:|RIP  ?|E?IP: |epc : |ra : |pc : |lr : |(?:PC|LR) is at )?(?:\[<[0-9a-f]+>\] *){0,2})"
    r"(?P<guess>\? )?(?P<name>[A-Za-z_][\w.$]*)\+0x(?P<offset>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})(?P<rest>.*)",
    re.DOTALL,
)
_POINTER = re.compile(r"\s*(?:RIP|E?IP|epc|pc|PC)\b")
_ANNOTATED = re.compile(r" (?:\[\w[\w-]*\]|\(?\S+:\d+)")  # of a module, or somebody looked it up before
_DISCRIMINATOR = re.compile(r" \(discriminator \d+\)$")
#: Where the path of a source file begins below the kernel's folder, when nothing better is known.
_BELOW = re.compile(
    r"(?:^|.*?/)((?:arch|block|certs|crypto|drivers|fs|include|init|io_uring|ipc|kernel|lib|mm|net|rust"
    r"|samples|security|sound|virt)/.+)"
)
#: A function that every kernel has, and its file: tells what comes before the kernel's own folders in a path.
_LANDMARKS = (("start_kernel", "init/main.c"), ("panic", "kernel/panic.c"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A function at a line of its source."""

    function: str
    file: str  # as the debug information has it
    line: int


class Symboliser:
    """Adds source lines and inlined frames to reports. Use as a context manager; leaving it ends the helpers.

    `objects` are object files with debug information, compiled like those of the kernel: they are asked for what
    `vmlinux` has no debug information on.
    """

    def __init__(self, vmlinux: Path, objects: Sequence[Path] = ()) -> None:
        """Read the symbols; raises ConfigError when `vmlinux` cannot be read and HostError without binutils."""
        self._vmlinux = _Binary(vmlinux)
        self._objects = tuple(_Binary(path) for path in objects)
        self._root = self._find_root()

    @property
    def has_lines(self) -> bool:
        """Whether `vmlinux` has debug information."""
        return self._root is not None

    def annotate(self, text: str) -> str:
        """Return `text` with ` FILE:LINE` at the end of its frames, and a line with ` [inline]` for what is inlined.

        What cannot be looked up stays as it is; never raises for anything in `text`, and is done within SECONDS.
        """
        deadline = Deadline(SECONDS)
        exact: set[str] = set()  # what the instruction pointer stood at: no return address
        found: list[str] = []
        asked = 0
        for line in text.split("\n"):
            message = take_apart(line.encode("utf-8", "replace"), 0).message
            match = _FRAME.fullmatch(message)
            if match is None or _ANNOTATED.match(match["rest"]) or asked >= MAX_FRAMES or deadline.expired:
                found.append(line)
                continue
            asked += 1
            at = f"{match['name']}+{match['offset']}"
            if _POINTER.match(match["lead"]):
                exact.add(at)
            places = self._places(
                match["name"], int(match["offset"], 16), int(match["size"], 16), at in exact, deadline
            )
            before = line[: len(line) - len(message)] if line.endswith(message) else ""
            found += self._rendered(before, match, places, line)
        return "\n".join(found)

    def _rendered(self, before: str, match: re.Match[str], places: Sequence[Place], line: str) -> Iterable[str]:
        if not places:
            return (line,)
        *inlined, outer = places
        if match["guess"]:
            inlined = []  # it is uncertain that the frame is there at all
        lead = before + re.sub(r"\[<[0-9a-f]+>\] *", "", match["lead"])
        own = f"{line.rstrip()} {self._path(outer.file)}:{outer.line}"
        return (*(f"{lead}{one.function} {self._path(one.file)}:{one.line} [inline]" for one in inlined), own)

    def _places(self, name: str, offset: int, size: int, exact: bool, deadline: Deadline) -> Sequence[Place]:
        symbol = self._vmlinux.symbol(name, size)
        if symbol is None or offset > size:
            return ()
        back = 0 if exact or offset == 0 else 1
        places = self._vmlinux.places(symbol.address + offset - back, deadline)
        for binary in () if places else self._objects:
            there = binary.symbol(name, size)
            # ELF knows the true size, without padding: of the same source and compiler, it is the same. A cold part is
            # in a section of its own, and addr2line is asked about one.
            if there is not None and there.size == symbol.size and ".cold" not in name:
                places = binary.places(there.address + offset - back, deadline)
                if places and places[-1].function == plain_function(name):
                    return places
                places = ()
        return places

    def _find_root(self) -> str | None:
        """Return what comes ahead of the kernel's own folders in the paths; None without debug information."""
        root = None
        for name, file in _LANDMARKS:
            for symbol in self._vmlinux.named(name):
                places = self._vmlinux.places(symbol.address, Deadline(SECONDS))
                if places and root is None:
                    root = ""
                if places and places[-1].file.endswith("/" + file):
                    return places[-1].file.removesuffix(file)
        return root

    def _path(self, file: str) -> str:
        """Return the path of a source file below the kernel's folder."""
        below = _BELOW.match(file) if file.startswith("/") else None
        if self._root and file.startswith(self._root):
            file = file.removeprefix(self._root)
        elif below:
            file = below[1]
        return posixpath.normpath(file)

    def close(self) -> None:
        """End the helpers."""
        for binary in (self._vmlinux, *self._objects):
            binary.close()

    def __enter__(self) -> Symboliser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Binary:
    """An ELF file: its functions, and the addr2line that is asked about it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file", hint="expected a vmlinux, as the kernel's build leaves it")
        try:
            self._symbols: Symbols = read_symbols(path)
        except HostError as error:
            raise ConfigError(f"{path}: not an ELF file with symbols ({error.summary})") from error
        self.path = path
        self._known: dict[int, tuple[Place, ...]] = {}
        self._asker: _Addr2line | None = None
        self._broken = False

    def named(self, name: str) -> tuple[Symbol, ...]:
        return self._symbols.named(name)

    def symbol(self, name: str, size: int) -> Symbol | None:
        """Return the function `name` that the kernel says to have `size` bytes; None if there is none or no telling."""
        fitting = {one.address: one for one in self.named(name) if 0 <= size - one.size < PADDING}
        return next(iter(fitting.values())) if len(fitting) == 1 else None

    def places(self, address: int, deadline: Deadline) -> tuple[Place, ...]:
        """Return the functions at an address, the innermost first; () where there is no debug information."""
        if address not in self._known:
            if self._broken or len(self._known) >= MAX_KNOWN:
                return ()
            try:
                self._asker = self._asker or _Addr2line(self.path)
                self._known[address] = self._asker.ask(address, deadline)
            except (OSError, ValueError, HostError):
                self._broken = True
                self.close()
                return ()
        return self._known[address]

    def close(self) -> None:
        if self._asker is not None:
            self._asker.close()
            self._asker = None


class _Addr2line:
    """A running addr2line."""

    def __init__(self, path: Path) -> None:
        relocatable = path.suffix in (".o", ".ko")  # addresses count from the start of a section there
        self._child = Child(
            ["addr2line", "-a", "-i", "-f", "-C", "-e", path, *(("-j", ".text") if relocatable else ())],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        self._left = b""

    def ask(self, address: int, deadline: Deadline) -> tuple[Place, ...]:
        """Return the functions at `address`; raises OSError or ValueError when addr2line does not answer."""
        asking, answering = self._child.popen.stdin, self._child.popen.stdout
        assert asking is not None
        assert answering is not None
        asking.write(f"{address:#x}\n{SENTINEL:#x}\n".encode())
        asking.flush()
        lines: list[str] = []
        while len(lines) < 3 or lines[-3] != f"{SENTINEL:#018x}":
            lines.append(self._line(answering, deadline))
            if len(lines) > 3 + 2 * MAX_DEPTH + 3:
                raise ValueError("addr2line does not end its answer")
        return parse_places(lines[1:-3])

    def _line(self, pipe: IO[bytes], deadline: Deadline) -> str:
        while b"\n" not in self._left:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline.remaining))
            data = pipe.read1(1 << 16) if ready else b""  # type: ignore[attr-defined]  # a BufferedReader
            if not data:
                raise OSError("addr2line does not answer")
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return line.decode("utf-8", "replace")

    def close(self) -> None:
        self._child.__exit__()


def parse_places(lines: Sequence[str]) -> tuple[Place, ...]:
    """Return what addr2line prints of one address, in pairs of a function and its line.

    Empty where it knows no line of the function itself; an inlined one whose line it does not know is left out.
    """
    places = []
    for function, where in zip(lines[::2], lines[1::2], strict=False):
        file, _, line = _DISCRIMINATOR.sub("", where).rpartition(":")
        known = file not in ("", "??") and line.isdecimal()
        places.append(Place(function=plain_function(function), file=file, line=int(line) if known else 0))
    return tuple(place for place in places if place.line) if places and places[-1].line else ()
