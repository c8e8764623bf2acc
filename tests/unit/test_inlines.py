"""Inlined code found by compiling again: on a file that gcc really compiles."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

from rig.touches.functions import Kind, Symbol, Symbols, parse_symbols, read_symbols
from rig.touches.inlines import of_object, parse_frames, saved_command, with_debug

COMMAND = (
    "savedcmd_mm/a.o := gcc -Wp,-MMD,mm/.a.o.d -nostdinc -I/w/source/include -I./include "
    "-include /w/source/include/linux/kconfig.h -fmacro-prefix-map=/w/source/= -O2 -I/w/source/mm -Imm "
    "-DKBUILD_MODFILE='\"mm/a\"' -c -o mm/a.o /w/source/mm/a.c   ; ./tools/objtool/objtool --orc mm/a.o\n"
    "\nsource_mm/a.o := /w/source/mm/a.c\n"
)
TEXT = """\
extern int seen(int);
static inline __attribute__((always_inline)) int inner(int a) { return seen(a) * 3; }
static inline __attribute__((always_inline)) int outer(int a) { return inner(a) + seen(7); }
int plain(int a) { return seen(a) + 1; }
int holder(int a) { return seen(1) + outer(a) + seen(2); }
"""


def test_the_saved_command_is_made_to_compile_another_tree() -> None:
    command = saved_command(COMMAND)
    assert command is not None
    words = with_debug(command, Path("/w/source"), Path("/t"), "mm/a.c", Path("/t/again.o"))
    assert " ".join(words) == (
        "gcc -nostdinc -I/t/include -I./include -include /t/include/linux/kconfig.h -O2 -I/t/mm -Imm "
        '-DKBUILD_MODFILE="mm/a" -c -fmacro-prefix-map=/t/= -g -o /t/again.o /t/mm/a.c'
    )


def test_what_is_no_compilation_is_no_command() -> None:
    assert saved_command("") is None
    assert saved_command("savedcmd_mm/built-in.a := rm -f mm/built-in.a; ar cDPrST mm/built-in.a a.o") is None


def test_frames_are_read_from_the_innermost_on() -> None:
    listing = "0x0000000000000004\ninner\na.c:1\nouter\na.c:2\nholder\na.c:5\n0x08\nholder\na.c:5 (discriminator 2)\n"
    assert [(one.address, one.functions) for one in parse_frames(listing)] == [
        (4, ("inner", "outer", "holder")),
        (8, ("holder",)),
    ]


def compiled(folder: Path) -> Path:
    (folder / "a.c").write_text(TEXT)
    target = folder / "a.o"
    subprocess.run(["gcc", "-O2", "-g", "-c", "-o", target, folder / "a.c"], check=True, cwd=folder)
    return target


def test_inlined_calls_are_inside_their_holder(tmp_path: Path) -> None:
    target = compiled(tmp_path)
    ranges, notes = of_object(target, frozenset(["inner", "outer"]), read_symbols(target), "mm/a.c")
    assert not notes
    assert {(one.symbol, one.function, one.kind) for one in ranges} == {
        ("holder", "inner", Kind.INLINED),
        ("holder", "outer", Kind.INLINED),
    }
    holder = read_symbols(target).one("holder", "a.c")
    assert holder is not None
    assert all(one.offset > 0 and one.offset + one.length <= holder.size for one in ranges)
    assert sum(one.length for one in ranges) < holder.size
    ends = sorted((one.offset, one.offset + one.length) for one in ranges)
    assert all(a[1] <= b[0] for a, b in pairwise(ends))


def test_a_symbol_of_another_size_is_left_out_with_a_note(tmp_path: Path) -> None:
    target = compiled(tmp_path)
    kernel = Symbols([Symbol(name="holder", address=0x1000, size=1, file="")])
    ranges, notes = of_object(target, frozenset(["inner"]), kernel, "mm/a.c")
    assert not ranges
    (note,) = notes
    assert "holder of mm/a.c was left out: the kernel has 1 bytes" in note
    ranges, notes = of_object(target, frozenset(["inner"]), parse_symbols(""), "mm/a.c")
    assert not ranges
    assert "no such symbol" in notes[0]
