"""Where gcc inlined the touched functions, found out without debug information in the kernel.

The kernels have no DWARF: it would double the time of a build. But kbuild keeps the command that made each object file,
and -g does not change the code, so the touched files alone are compiled once more, with -g, from the text of the very
prefix and the generated headers of the build. The inlined instructions are expressed as (symbol, offset) and hold for
the kernel if the symbol has the same size there, which is checked for each.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rig import proc
from rig.touches.functions import Instruction, Kind, Range, Symbol, Symbols, parse_disassembly, read_symbols
from rig.trees.git import Git

SECONDS = 600.0
_HEADERS = ("include", "arch/x86/include")
_SAVED = re.compile(r"^(?:savedcmd|cmd)_\S+ := (.*)$", re.MULTILINE)
_HEADING = re.compile(r"([0-9a-f]+) <(\S+)>:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An instruction and the functions it comes from, the innermost first; the last one is no inlined one."""

    address: int
    functions: tuple[str, ...]


def saved_command(text: str) -> tuple[str, ...] | None:
    """Return the compiler's command line in a `.X.o.cmd` of kbuild, without what is done to the object afterwards."""
    match = _SAVED.search(text)
    if match is None:
        return None
    words = shlex.split(match[1].partition(" ; ")[0])
    return tuple(words) if "-c" in words else None


def with_debug(command: Sequence[str], source: Path, tree: Path, text: str, target: Path) -> tuple[str, ...]:
    """Return `command` made to compile `text` (a path in the tree) into `target`, with -g.

    `source` is the checkout that the command names, `tree` another one, which is used in its place.
    """
    words: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word == "-o":
            skip = True
        elif not word.startswith(("-Wp,-M", "-fmacro-prefix-map=")) and word not in (str(source / text), text):
            words.append(word.replace(f"{source}/", f"{tree}/"))
    # __FILE__ is in strings and in the code that takes their length.
    return (*words, f"-fmacro-prefix-map={tree}/=", "-g", "-o", str(target), str(tree / text))


def write_tree(git: Git, commit: str, paths: Iterable[str], tree: Path) -> None:
    """Write into `tree` what the compilation of `paths` of `commit` needs: all headers, and the folders of `paths`.

    The checkout of the builds is left alone: another rig may be building in it, for another series. Raises HostError.
    """
    folders = sorted({str(PurePosixPath(path).parent) for path in paths})
    listed = git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", *_HEADERS, *folders)
    env = {"GIT_INDEX_FILE": str(tree / ".index"), "GIT_DIR": str(git.at), "GIT_WORK_TREE": str(tree)}
    tree.mkdir(parents=True, exist_ok=True)
    git("read-tree", commit, env=env)
    git("checkout-index", "-z", "--stdin", f"--prefix={tree}/", env=env, stdin=listed.encode())


def parse_frames(listing: str) -> Iterator[Frame]:
    """Yield what `addr2line -a -f -i` prints: an address, then a pair of lines for each function."""
    address = -1
    names: list[str] = []
    lines = listing.splitlines()
    index = 0
    while index < len(lines):
        if lines[index].startswith("0x"):
            if names:
                yield Frame(address=address, functions=tuple(names))
            address, names = int(lines[index], 16), []
            index += 1
        else:
            names.append(lines[index])
            index += 2
    if names:
        yield Frame(address=address, functions=tuple(names))


def inlined_ranges(
    frames: Iterable[Frame],
    instructions: Sequence[Instruction],
    names: frozenset[str],
    holder: Symbol,
) -> tuple[Range, ...]:
    """Return the runs of instructions of `holder` that come from one of `names`, other than as `holder` itself.

    Where touched functions are inlined into each other the innermost has it.
    """
    inner = {frame.address: next((name for name in frame.functions[:-1] if name in names), None) for frame in frames}
    ends = [one.address for one in instructions[1:]] + [holder.address + holder.size]
    found: list[Range] = []
    last: int | None = None
    for one, end in zip(instructions, ends, strict=True):
        name = inner.get(one.address)
        if name is None:
            last = None
            continue
        offset, length = one.address - holder.address, end - one.address
        if last is not None and found[-1].function == name:
            found[-1] = _longer(found[-1], length)
        else:
            found.append(
                Range(
                    symbol=holder.name, file=holder.file, offset=offset, length=length, function=name, kind=Kind.INLINED
                )
            )
        last = end
    return tuple(found)


def _longer(one: Range, by: int) -> Range:
    return Range(
        symbol=one.symbol,
        file=one.file,
        offset=one.offset,
        length=one.length + by,
        function=one.function,
        kind=one.kind,
    )


def of_object(binary: Path, names: frozenset[str], kernel: Symbols, path: str) -> tuple[tuple[Range, ...], list[str]]:
    """Return where the object file of `path` has `names` inlined, as far as it agrees with the kernel, and notes.

    Only .text counts: other sections hold what runs once, or when all is lost, and noinstr code, which must not wait.
    Raises HostError when binutils cannot read the object.
    """
    file = PurePosixPath(path).name
    own = read_symbols(binary)
    found: list[Range] = []
    notes: list[str] = []
    listing = proc.check(["objdump", "-d", "--no-show-raw-insn", "-j", ".text", binary], timeout=SECONDS)
    holders = tuple(by_symbol(listing, own, file))
    frames = {frame.address: frame for frame in _frames(binary, (one for _, inside in holders for one in inside))}
    for holder, inside in holders:
        ranges = inlined_ranges([frames[one.address] for one in inside if one.address in frames], inside, names, holder)
        if not ranges:
            continue
        there = kernel.one(holder.name, file)
        if there is None or there.size != holder.size:
            sizes = "no such symbol" if there is None else f"{there.size} bytes, compiled again {holder.size}"
            notes.append(f"{holder.name} of {path} was left out: the kernel has {sizes}")
            continue
        found += ranges
    return tuple(found), notes


def _frames(binary: Path, instructions: Iterable[Instruction]) -> Iterator[Frame]:
    words = ["addr2line", "-a", "-f", "-i", "-e", str(binary), "-j", ".text"]
    stdin = "".join(f"{one.address:#x}\n" for one in instructions).encode()
    return parse_frames(proc.check(words, timeout=SECONDS, stdin=stdin))


def by_symbol(listing: str, symbols: Symbols, file: str) -> Iterator[tuple[Symbol, tuple[Instruction, ...]]]:
    """Yield the functions in what objdump prints of a section, with their instructions; padding belongs to none."""
    for block in re.split(r"\n(?=[0-9a-f]+ <)", listing):
        match = _HEADING.match(block)
        symbol = symbols.one(match[2], file) if match else None
        if match is None or symbol is None or not symbol.size or symbol.address != int(match[1], 16):
            continue
        inside = tuple(one for one in parse_disassembly(block) if one.address < symbol.address + symbol.size)
        if inside:
            yield symbol, inside


def recompile(
    command: Sequence[str], *, objects: Path, source: Path, tree: Path, path: str, target: Path, env: Mapping[str, str]
) -> str:
    """Compile one file with debug information; returns "" or the reason why that did not work."""
    done = proc.run(with_debug(command, source, tree, path, target), timeout=SECONDS, cwd=objects, env=env)
    if done.ok:
        return ""
    why = next((line for line in done.stderr.splitlines() if "error" in line), "gcc failed" if done.status else "late")
    return f"{path} could not be compiled again: {why}"
