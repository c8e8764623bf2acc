"""Source lines for call traces: real programs of gcc, looked up by the real addr2line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import ConfigError
from rig.splats.symbols import MAX_FRAMES, Place, Symboliser, parse_places
from rig.touches.functions import Symbol, read_symbols

SOURCES = {
    "init/main.c": """\
extern int filemap_fault(int);
volatile int sink;
__attribute__((noinline)) int start_kernel(int n)
{
	sink = filemap_fault(n) + 1;
	return sink + 2;
}
int main(int argc, char **argv) { (void)argv; return start_kernel(argc); }
""",
    "mm/filemap.c": """\
#include "../include/linux/folio.h"
extern void broken(int);
static inline __attribute__((always_inline)) int find_folio(int n)
{
	return folio_mapcount(n) * 3;
}
__attribute__((noinline)) int filemap_fault(int n)
{
	int m = find_folio(n);

	broken(m);
	return m + 1;
}
__attribute__((noinline)) void broken(int n) { __asm__ volatile("" : : "r"(n)); }
""",
    "include/linux/folio.h": """\
extern volatile int counts[];
volatile int counts[8];
static inline __attribute__((always_inline)) int folio_mapcount(int n)
{
	return counts[n & 7];
}
""",
}


def build(folder: Path, *flags: str) -> Path:
    """Compile the sources and return the program."""
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    program = folder / "vmlinux"
    files = [folder / name for name in SOURCES if name.endswith(".c")]
    subprocess.run(["gcc", "-O2", "-no-pie", *flags, "-o", program, *files], check=True, cwd=folder)
    return program


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernel"), "-g")


@pytest.fixture(scope="module")
def symboliser(vmlinux: Path) -> Iterator[Symboliser]:
    with Symboliser(vmlinux) as symbols:
        yield symbols


def symbol(program: Path, name: str) -> Symbol:
    (found,) = read_symbols(program).named(name)
    return found


def disassembly(program: Path, name: str) -> list[str]:
    words = ["objdump", "-d", f"--disassemble={name}", str(program)]
    listing = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if re.match(r"\s+[0-9a-f]+:\t", line)]


def frame_at(program: Path, name: str, line: str) -> str:
    """Return `NAME+0xOFFSET/0xSIZE` of an instruction in `name`, as the kernel prints it."""
    own = symbol(program, name)
    return f"{name}+{int(line.split(':')[0], 16) - own.address:#x}/{own.size:#x}"


def called_at(program: Path, name: str, callee: str) -> str:
    """Return the frame of `name` that has called `callee`."""
    lines = disassembly(program, name)
    index = next(i for i, line in enumerate(lines) if "call" in line and f"<{callee}>" in line)
    return frame_at(program, name, lines[index + 1])


def load_at(program: Path, name: str) -> str:
    """Return the frame of the load of `counts`, which an inlined function of an inlined one does."""
    line = next(line for line in disassembly(program, name) if re.search(r"mov .*,%r\w+,4\)", line))
    return frame_at(program, name, line)


def test_a_caller_gets_the_line_of_its_call_and_not_the_one_after(vmlinux: Path) -> None:
    frame = called_at(vmlinux, "start_kernel", "filemap_fault")
    with Symboliser(vmlinux) as symbols:
        assert symbols.annotate(f"[    1.000000]  {frame}") == f"[    1.000000]  {frame} init/main.c:5"


def test_inlined_functions_stand_above_the_one_that_holds_them(vmlinux: Path) -> None:
    at = load_at(vmlinux, "filemap_fault")
    with Symboliser(vmlinux) as symbols:
        assert symbols.annotate(f"[    1.000000][   T12] RIP: 0010:{at}").split("\n") == [
            "[    1.000000][   T12] RIP: 0010:folio_mapcount include/linux/folio.h:5 [inline]",
            "[    1.000000][   T12] RIP: 0010:find_folio mm/filemap.c:5 [inline]",
            f"[    1.000000][   T12] RIP: 0010:{at} mm/filemap.c:9",
        ]


def test_an_uncertain_frame_is_not_unfolded(vmlinux: Path) -> None:
    at = load_at(vmlinux, "filemap_fault")
    offset, size = (int(word, 16) for word in at.removeprefix("filemap_fault+").split("/"))
    with Symboliser(vmlinux) as symbols:
        line = f" ? filemap_fault+{offset + 1:#x}/{size:#x}"
        assert symbols.annotate(line) == f"{line} mm/filemap.c:9"


def test_old_frames_with_addresses(vmlinux: Path) -> None:
    frame = called_at(vmlinux, "start_kernel", "filemap_fault")
    line = f" [<ffffffff81000123>] {frame}"
    with Symboliser(vmlinux) as symbols:
        assert symbols.annotate(line) == f"{line} init/main.c:5"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        " nowhere+0x12/0x40",
        " start_kernel+0x4/0x4000",  # of another build: the size does not fit
        " start_kernel+0xfffff/0x20",
        " start_kernel+0x4/0x20 [module]",
        " start_kernel+0x4/0x20 init/main.c:3",
        " start_kernel+0x4/0x20 (init/main.c:3)",
        "WARNING: CPU: 0 PID: 1 at init/main.c:3 start_kernel+0x4/0x20",
    ],
)
def test_what_cannot_be_looked_up_stays_as_it_is(vmlinux: Path, line: str) -> None:
    with Symboliser(vmlinux) as symbols:
        assert symbols.annotate(line) == line


def test_annotating_twice_changes_nothing(vmlinux: Path) -> None:
    text = "\n".join(
        (
            "Call Trace:",
            f" {load_at(vmlinux, 'filemap_fault')}",
            f" {called_at(vmlinux, 'start_kernel', 'filemap_fault')}",
        )
    )
    with Symboliser(vmlinux) as symbols:
        once = symbols.annotate(text)
        assert "[inline]" in once
        assert symbols.annotate(once) == once


def test_a_kernel_without_debug_information_adds_nothing(tmp_path: Path) -> None:
    bare = build(tmp_path)
    line = f" {called_at(bare, 'start_kernel', 'filemap_fault')}"
    with Symboliser(bare) as symbols:
        assert symbols.annotate(line) == line


def test_objects_with_debug_information_stand_in_for_it(tmp_path: Path) -> None:
    bare = build(tmp_path)
    again = tmp_path / "again.o"
    subprocess.run(
        ["gcc", "-O2", "-no-pie", "-g", "-c", "-o", again, tmp_path / "mm/filemap.c"],
        check=True,
    )
    caller = f" {called_at(bare, 'start_kernel', 'filemap_fault')}"
    with Symboliser(bare, [again]) as symbols:
        text = symbols.annotate(f" {called_at(bare, 'filemap_fault', 'broken')}\n{caller}")
    assert text.split("\n")[0].endswith("mm/filemap.c:11")
    assert text.split("\n")[1] == caller  # the object does not know it


def test_the_frames_of_one_text_are_bounded(vmlinux: Path) -> None:
    frame = f" {called_at(vmlinux, 'start_kernel', 'filemap_fault')}"
    with Symboliser(vmlinux) as symbols:
        text = symbols.annotate("\n".join([frame] * (MAX_FRAMES + 5)))
    assert text.count("main.c:5") == MAX_FRAMES
    assert len(text.split("\n")) == MAX_FRAMES + 5


def test_a_helper_that_dies_costs_the_lines_and_nothing_else(vmlinux: Path) -> None:
    frame = f" {called_at(vmlinux, 'start_kernel', 'filemap_fault')}"
    with Symboliser(vmlinux) as symbols:
        asker = symbols._vmlinux._asker
        assert asker is not None
        asker._child.stop(grace=0)
        assert symbols.annotate(frame) == frame


@given(st.text(alphabet=st.sampled_from("start_kernel+0x4/0x20 [<>]?RIP: 0010:\n\t\r\x1b[K(){}~\udc80é"), max_size=200))
def test_garbage_is_survived(symboliser: Symboliser, text: str) -> None:
    assert symboliser.annotate(text).count("\n") >= text.count("\n")


def test_a_file_that_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Symboliser(tmp_path / "gone")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="not an ELF file"):
        Symboliser(tmp_path / "text")


def test_an_outer_function_without_a_line_is_not_known() -> None:
    assert parse_places(["inner", "a.h:3", "outer", "??:0"]) == ()
    assert parse_places(["inner", "a.h:?", "outer.isra.0", "/k/a.c:7 (discriminator 2)"]) == (
        Place(function="outer", file="/k/a.c", line=7),
    )
