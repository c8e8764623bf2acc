"""`rig scan`: what it prints for people and programs, what it reads, and its exit codes."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rig.cli import main
from rig.commandline import scan_words
from rig.errors import HostError
from rig.front import scan

ROOT = Path(__file__).parents[2]

HEALTHY = b"[    0.000000] Linux version 6.12.0\n[    1.000000] Run /init as init process\n"
OOPS = b"""\
[    5.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    5.000001] #PF: supervisor read access in kernel mode
[    5.000002] Oops: Oops: 0000 [#1] PREEMPT SMP
[    5.000003] CPU: 0 UID: 0 PID: 77 Comm: test Not tainted 6.12.0 #1
[    5.000004] RIP: 0010:filemap_fault+0x12/0x340
[    5.000005] Call Trace:
[    5.000006]  <TASK>
[    5.000007]  do_fault+0x33/0x120
[    5.000008]  </TASK>
[    5.000009] ---[ end trace 0000000000000000 ]---
"""
WARNING = b"""\
[    6.000000] WARNING: CPU: 1 PID: 78 at mm/rmap.c:123 rmap_walk+0x12/0x340
[    6.000001] CPU: 1 UID: 0 PID: 78 Comm: test Tainted: G      D            6.12.0 #1
[    6.000002] Call Trace:
[    6.000003]  rmap_walk+0x33/0x120
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "console.log"
    path.write_bytes(HEALTHY + OOPS + WARNING)
    return path


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["scan", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_is_one_array_in_console_order(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = printed(capsys, "--json", str(log), str(log))
    found: list[dict[str, Any]] = json.loads(out)
    assert code == 1
    assert [one["title"] for one in found] == [
        "BUG: unable to handle kernel NULL pointer dereference in filemap_fault",
        "WARNING in rmap_walk",
    ] * 2
    first, second = found[:2]
    assert set(first) >= {
        "kind", "title", "function", "signature", "first_line", "last_line", "corrupted", "text",
    }  # fmt: skip
    assert (first["kind"], first["function"], first["fatal"], first["echo"]) == (
        "page-fault",
        "filemap_fault",
        True,
        False,
    )
    assert (first["first_line"], first["last_line"]) == (3, 12)
    assert first["text"].split("\n") == OOPS.decode().rstrip("\n").split("\n")
    assert (second["kind"], second["echo"], second["corrupted"]) == ("warning", True, False)


def test_nothing_found_is_said_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ok.log").write_bytes(HEALTHY)
    code, out, _ = printed(capsys, str(tmp_path / "ok.log"))
    assert (code, out) == (0, f"{tmp_path}/ok.log: nothing found in 2 lines\n")
    assert printed(capsys, "--json", str(tmp_path / "ok.log"))[:2] == (0, "[]\n")
    (tmp_path / "empty.log").touch()
    assert "empty" in printed(capsys, str(tmp_path / "empty.log"))[1]


def test_people_see_causes_first_and_echoes_apart(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = printed(capsys, str(log))
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == f"{log}: 1 finding and 1 echo in 16 lines"
    cause = lines.index("BUG: unable to handle kernel NULL pointer dereference in filemap_fault  [fatal]")
    apart = next(i for i, line in enumerate(lines) if line.startswith("Echoes"))
    assert cause < apart < lines.index("WARNING in rmap_walk  [echo]")
    assert "  kind page-fault, function filemap_fault, lines 3 to 12, signature page-fault:filemap_fault" in lines
    assert "    [    5.000007]  do_fault+0x33/0x120" in lines


def test_brief_is_a_line_per_finding_as_compilers_print_theirs(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = printed(capsys, "--brief", str(log))
    assert out.splitlines() == [
        f"{log}:3: page-fault: BUG: unable to handle kernel NULL pointer dereference in filemap_fault  [fatal]",
        f"{log}:13: warning: WARNING in rmap_walk  [echo]",
    ]


def test_what_a_guest_prints_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.log").write_bytes(OOPS.replace(b"#PF: ", b"#PF: [bold]\x1b]0;title\x07\x9b2J "))
    _, out, _ = printed(capsys, str(tmp_path / "evil.log"))
    assert not set(out) & {"\x1b", "\x07", "\x9b"}
    assert "[bold]" in out


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_compressed_logs_are_unpacked(pack: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_bytes(pack(HEALTHY + OOPS))
    assert printed(capsys, str(tmp_path / "log"))[0] == 1
    (tmp_path / "log").write_bytes(pack(HEALTHY + OOPS)[:-12])
    code, _, err = printed(capsys, str(tmp_path / "log"))
    assert code == HostError.exit_code
    assert "damaged" in err


def test_standard_input_packed_or_not(log: Path) -> None:
    for data in (log.read_bytes(), lzma.compress(log.read_bytes())):
        done = subprocess.run(
            [sys.executable, "-m", "rig", "scan", "--brief", "-"],
            input=data,
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 1
        assert done.stdout.decode().startswith("standard input:3: page-fault: ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/no/such/file"], "no such file"),
        (["/tmp"], "a folder"),
        (["-", "-"], "only once"),
        (["--vmlinux", "/no/such/vmlinux", str(ROOT / "README.md")], "no such file"),
        (["--vmlinux", str(ROOT / "README.md"), str(ROOT / "README.md")], "not an ELF file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = printed(capsys, *argv)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_nothing_is_printed_of_readable_logs_when_another_one_is_missing(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, str(log), "/no/such/file")[:2] == (2, "")


def test_files_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("budget=5", "test", "scan"):
        (tmp_path / name).write_bytes(OOPS)
        assert main(["-C", str(tmp_path), "scan", "--brief", name]) == 1
        assert capsys.readouterr().out.startswith(f"{name}:1: ")


def test_scan_is_a_command_only_where_a_command_stands() -> None:
    assert scan_words(["scan", "a"]) == ["a"]
    assert scan_words(["-s", "-C", "scan", "--json", "scan"]) == []
    assert scan_words(["-C", "scan", "list"]) is None
    assert scan_words(["list", "scan"]) is None
    assert scan_words([]) is None


def test_json_before_the_command_counts_too(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "scan", str(log)]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["scan", "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    for word in ("--json", "--vmlinux", "kasan", "boot-failure", "signature", "corrupted", "echo", "exit codes"):
        assert word in text


def test_a_kernel_without_debug_information_is_told(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", tmp_path / "vmlinux", tmp_path / "a.c"], check=True)
    code, out, err = printed(capsys, "--vmlinux", str(tmp_path / "vmlinux"), str(log))
    assert code == 1
    assert "do_fault+0x33/0x120" in out
    assert "no debug information" in err


def test_with_debug_information_the_frames_get_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "init").mkdir()
    (tmp_path / "init/main.c").write_text(
        "int start_kernel(void)\n{\n\treturn 0;\n}\nint main(void) { return start_kernel(); }\n"
    )
    subprocess.run(["gcc", "-g", "-o", "vmlinux", "init/main.c"], check=True, cwd=tmp_path)
    size = next(
        int(line.split()[2])
        for line in subprocess.run(
            ["readelf", "-sW", tmp_path / "vmlinux"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        if line.endswith(" start_kernel")
    )
    (tmp_path / "log").write_bytes(OOPS.replace(b"do_fault+0x33/0x120", f"start_kernel+0x5/{size:#x}".encode()))
    code, out, _ = printed(capsys, "--json", "--vmlinux", str(tmp_path / "vmlinux"), str(tmp_path / "log"))
    assert code == 1
    assert f"start_kernel+0x5/{size:#x} init/main.c:3" in json.loads(out)[0]["text"]


def test_pieces_of_a_stream_are_handed_on_as_they_come() -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces = [b"one\n", b"two\n"]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = self.pieces.pop(0) if self.pieces else b""
            buffer[: len(piece)] = piece
            return len(piece)

    assert list(scan.chunks(io.BufferedReader(Slow()))) == [b"one\n", b"two\n"]
