"""The control block: the same layout for Python and for the C compiler, and what is written is read back."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from rig.perturbation import plugin, stallctl
from rig.perturbation.stallctl import Block, Count, Setting, block

STRUCTS = {"stall_head": stallctl.HEAD, "stall_range": stallctl.RANGE, "stall_count": stallctl.COUNT}


def test_the_c_compiler_lays_the_block_out_as_python_does(tmp_path: Path) -> None:
    lines = ["#include <stddef.h>", "#include <stdio.h>", f'#include "{plugin.SOURCE / "stall.h"}"', "int main(void) {"]
    for name, fields in STRUCTS.items():
        for field, _ in fields:
            where, size = f"offsetof(struct {name}, {field})", f"sizeof(((struct {name} *)0)->{field})"
            lines.append(f'printf("{name} {field} %zu %zu\\n", {where}, {size});')
        lines.append(f'printf("{name} size %zu 0\\n", sizeof(struct {name}));')
    lines.append('printf("version magic %u %u\\n", STALL_VERSION, STALL_MAGIC); }')
    (tmp_path / "layout.c").write_text("\n".join(lines))
    subprocess.run(["gcc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    said = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout.splitlines()
    expected = []
    for name, fields in STRUCTS.items():
        places = stallctl.offsets(fields)
        expected += [f"{name} {field} {places[field]} {struct.calcsize('=' + kind)}" for field, kind in fields]
        expected.append(f"{name} size {places['']} 0")
    assert said == [*expected, f"version magic {stallctl.VERSION} {stallctl.MAGIC}"]


def made(path: Path) -> Path:
    path.write_bytes(block([(100, 200), (300, 310)], vcpus=3, at_most=2, share=0.25, seed=-1))
    return path


def head(path: Path) -> dict[str, int]:
    values = struct.unpack_from("=" + "".join(kind for _, kind in stallctl.HEAD), path.read_bytes())
    return {name: value for (name, _), value in zip(stallctl.HEAD, values, strict=True)}


def test_a_fresh_block_is_switched_off(tmp_path: Path) -> None:
    path = made(tmp_path / "ctl")
    found = head(path)
    assert (found["episode"], found["loaded"], found["ranges"], found["vcpus"]) == (0, 0, 2, 3)
    assert (found["share"], found["at_most"], found["seed"]) == (250_000, 2, 2**64 - 1)
    with Block(path) as shared:
        assert not shared.loaded
        assert shared.counts() == (Count(executed=0, stalls=0, stalled=0.0, withheld=0),) * 2


def test_each_episode_has_a_number_of_its_own_and_leaving_switches_off(tmp_path: Path) -> None:
    path = made(tmp_path / "ctl")
    with Block(path) as shared:
        for number in (1, 2):
            shared.begin(Setting(distance=70, shortest=0.001, longest=0.02, weights=(4, 0)))
            shared.adjust(Setting(distance=71, shortest=0.001, longest=0.02, weights=(4, 0)))
            found = head(path)
            assert (found["episode"], found["distance"]) == (number, 71)
            assert (found["shortest"], found["longest"]) == (1_000_000, 20_000_000)
        first = stallctl.offsets(stallctl.HEAD)[""]
        assert struct.unpack_from("=QQIIQQII", path.read_bytes(), first) == (100, 200, 4, 0, 300, 310, 0, 0)
    assert head(path)["episode"] == 0


def test_counts_are_summed_over_the_vcpus(tmp_path: Path) -> None:
    path = made(tmp_path / "ctl")
    data = bytearray(path.read_bytes())
    first = stallctl.offsets(stallctl.HEAD)[""] + 2 * stallctl.offsets(stallctl.RANGE)[""]
    for vcpu, number in ((0, 1), (2, 10)):
        struct.pack_into("=QQQQ", data, first + (vcpu * 2 + 1) * 32, number, number, number * 10**9, number)
    path.write_bytes(data)
    with Block(path) as shared:
        assert shared.counts()[1] == Count(executed=11, stalls=11, stalled=11.0, withheld=11)
        assert shared.counts()[0].executed == 0


def test_what_is_no_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ctl"
    path.write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match="no control block"):
        Block(path)
