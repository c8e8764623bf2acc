"""The plugin by itself, between a caller that plays QEMU and a control block: what it instruments, and its two bounds.

That the real QEMU calls it as this one does is shown in tests/boot.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig.perturbation import plugin
from rig.perturbation.stallctl import Block, Count, Setting, block

#: `./host CTL ADDRESS...` runs one block of instructions at these addresses 1000 times on vCPU 0.
HOST = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct insn { uint64_t address; void (*executed)(unsigned int, void *); void *data; };
struct tb { size_t count; struct insn insns[16]; };

static void (*translated)(uint64_t id, struct tb *tb);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t, struct tb *)) { translated = cb; }
size_t qemu_plugin_tb_n_insns(const struct tb *tb) { return tb->count; }
struct insn *qemu_plugin_tb_get_insn(struct tb *tb, size_t i) { return &tb->insns[i]; }
uint64_t qemu_plugin_insn_vaddr(const struct insn *insn) { return insn->address; }
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *insn, void (*cb)(unsigned int, void *), int flags, void *data)
{ insn->executed = cb; insn->data = data; }

extern int qemu_plugin_version;
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

int main(int argc, char **argv)
{
	struct tb tb = { argc - 2 };
	char ctl[4096];
	char *arguments[] = { ctl };

	snprintf(ctl, sizeof(ctl), "ctl=%s", argv[1]);
	if (qemu_plugin_version != 1 || qemu_plugin_install(7, NULL, 1, arguments))
		return 1;
	for (size_t i = 0; i < tb.count; i++)
		tb.insns[i].address = strtoull(argv[i + 2], NULL, 0);
	translated(7, &tb);
	for (int round = 0; round < 1000; round++)
		for (size_t i = 0; i < tb.count; i++)
			if (tb.insns[i].executed)
				tb.insns[i].executed(0, tb.insns[i].data);
	return 0;
}
"""
SPANS = [(100, 110), (110, 120), (200, 210)]
NOTHING = Count(executed=0, stalls=0, stalled=0.0, withheld=0)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    (folder / "host.c").write_text(HOST)
    flags = [flag for flag in plugin.FLAGS if flag not in ("-fPIC", "-shared", "-Wextra", "-Werror")]
    files = map(str, (folder / "host.c", plugin.SOURCE / "stall.c"))
    subprocess.run(["gcc", *flags, "-o", str(folder / "host"), *files, "-lm"], check=True)
    return folder / "host"


def counts(
    host: Path, ctl: Path, weights: tuple[int, ...] | None, *addresses: int, at_most: int = 1, share: float = 0.5
) -> tuple[Count, ...]:
    """Run the addresses against a block in which an instruction in two is due for a stall of 10 us."""
    ctl.write_bytes(block(SPANS, vcpus=2, at_most=at_most, share=share, seed=3))
    with Block(ctl) as shared:
        if weights is not None:
            shared.begin(Setting(distance=2, shortest=1e-5, longest=1e-5, weights=weights))
        subprocess.run([host, ctl, *map(str, addresses)], check=True)
        assert shared.loaded
        return shared.counts()


def test_nothing_is_counted_or_stalled_while_it_is_switched_off(host: Path, tmp_path: Path) -> None:
    assert counts(host, tmp_path / "ctl", None, 100, 105, 205) == (NOTHING,) * 3


def test_each_range_counts_what_is_inside_it(host: Path, tmp_path: Path) -> None:
    found = counts(host, tmp_path / "ctl", (1, 1, 1), 99, 100, 109, 110, 120, 200, 210)
    assert [one.executed for one in found] == [2000, 1000, 1000]


def test_stalls_come_where_there_is_weight_and_only_there(host: Path, tmp_path: Path) -> None:
    found = counts(host, tmp_path / "ctl", (0, 1, 0), 100, 110, 200)
    assert found[1].stalls > 0
    assert found[1].stalled > 0
    assert all(one.stalls == one.withheld == 0 for one in (found[0], found[2]))


def test_nobody_is_stalled_when_that_many_may_not_be_stalled_at_once(host: Path, tmp_path: Path) -> None:
    found = counts(host, tmp_path / "ctl", (1, 1, 1), 100, at_most=0)
    assert found[0].stalls == 0
    assert found[0].withheld > 0


def test_without_a_share_there_is_the_first_stall_that_is_on_credit_and_no_other(host: Path, tmp_path: Path) -> None:
    found = counts(host, tmp_path / "ctl", (1, 1, 1), 100, share=0)
    assert found[0].stalls == 1
    assert found[0].withheld > 0


@pytest.mark.parametrize("content", [b"", b"x" * 200])
def test_what_is_no_control_block_is_refused(host: Path, tmp_path: Path, content: bytes) -> None:
    ctl = tmp_path / "ctl"
    ctl.write_bytes(content)
    done = subprocess.run([host, ctl], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(ctl) in done.stderr


def test_a_block_that_is_cut_off_is_refused(host: Path, tmp_path: Path) -> None:
    ctl = tmp_path / "ctl"
    ctl.write_bytes(block(SPANS, vcpus=2, at_most=1, share=0.1, seed=1)[:-1])
    done = subprocess.run([host, ctl], capture_output=True, text=True, check=False)
    assert (done.returncode, "is cut off" in done.stderr) == (1, True)
