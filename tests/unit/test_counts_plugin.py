"""The counting plugin by itself: what it takes for an atomic, and what it counts for a caller that plays QEMU.

That the real QEMU calls it as this one does is shown in tests/boot.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from rig.costs import countctl
from rig.costs.countctl import Counted, Reading, Role
from rig.perturbation import plugin, stallctl

#: `./decode` reads one instruction a line, in hexadecimal, and says what it is.
DECODE = r"""
#include <stdio.h>
#include "x86.h"

int main(void)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin)) {
		uint8_t code[16];
		unsigned int byte;
		size_t size = 0;
		int used = 0, at = 0;

		while (sscanf(line + at, "%2x%n", &byte, &used) == 1) {
			code[size++] = byte;
			at += used;
		}
		printf("%d %d %d\n", x86_locked(code, size), x86_iretq(code, size), x86_mark(code, size));
	}
	return 0;
}
"""
LOCKED = {
    "f0 ff 47 34": "lock incl 0x34(%rdi)",
    "f0 48 0f ba 2f 00": "lock btsq $0,(%rdi)",
    "f0 80 37 01": "lock xorb $1,(%rdi)",
    "f0 0f b1 17": "lock cmpxchg %edx,(%rdi)",
    "f0 41 ff 4c 24 34": "lock decl 0x34(%r12)",
    "f0 0f c1 07": "lock xadd %eax,(%rdi)",
    "66 f0 0f b1 17": "lock cmpxchg %dx,(%rdi), the prefixes in the other order",
    "65 f0 ff 00": "lock incl %gs:(%rax)",
    "f0 83 44 24 fc 00": "lock addl $0,-4(%rsp): smp_mb()",
    "87 07": "xchg %eax,(%rdi)",
    "48 87 07": "xchg %rax,(%rdi)",
    "86 07": "xchg %al,(%rdi)",
    "66 87 07": "xchg %ax,(%rdi)",
    "65 48 87 05 00 00 00 00": "xchg %rax,%gs:0(%rip)",
}
NOT_LOCKED = {
    "ff 47 34": "incl 0x34(%rdi)",
    "3e ff 47 34": "incl %ds:0x34(%rdi): a lock that was patched out",
    "87 c8": "xchg %ecx,%eax",
    "48 87 d8": "xchg %rbx,%rax",
    "90": "nop",
    "66 90": "xchg %ax,%ax",
    "0f b1 17": "cmpxchg without lock",
    "65 48 0f c7 0f": "cmpxchg16b without lock",
    "b8 f0 f0 f0 f0": "mov $0xf0f0f0f0,%eax",
    "48 8b 87 f0 00 00 00": "mov 0xf0(%rdi),%rax",
    "41 86": "cut off",
    "f3 90": "pause",
}


def compile_c(folder: Path, source: str, *files: Path) -> Path:
    (folder / "main.c").write_text(source)
    flags = [flag for flag in plugin.FLAGS if flag not in ("-fPIC", "-shared", "-Wextra", "-Werror")]
    words = ["gcc", *flags, f"-I{plugin.SOURCE}", "-o", str(folder / "main"), str(folder / "main.c"), *map(str, files)]
    subprocess.run(words, check=True)
    return folder / "main"


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("decode"), DECODE)


def decoded(program: Path, *lines: str) -> list[tuple[int, ...]]:
    done = subprocess.run([program], input="\n".join(lines) + "\n", text=True, capture_output=True, check=True)
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


def test_locked_instructions_are_told_from_others(decode: Path) -> None:
    lines = [*LOCKED, *NOT_LOCKED]
    found = dict(zip(lines, decoded(decode, *lines), strict=True))
    assert {line for line, answer in found.items() if answer[0]} == set(LOCKED)


def test_returns_from_interrupts_and_marks_are_known(decode: Path) -> None:
    words = ["48 cf", "cf", "0f 1f 80 52 49 47 00", "0f 1f 80 52 49 47 01", "0f 1f 80 00 00 00 00", "0f 1f 80 52 49 47"]
    assert decoded(decode, *words) == [(0, 1, -1), (0, 0, -1), (0, 0, 0), (0, 0, 1), (0, 0, -1), (0, 0, -1)]


def test_the_layout_is_that_of_the_c_compiler(tmp_path: Path) -> None:
    structs = {
        "counts_head": countctl.HEAD,
        "counts_span": countctl.SPAN,
        "counts_in_span": countctl.IN_SPAN,
        "counts_at_site": countctl.AT_SITE,
    }
    lines = ["#include <stdio.h>", "#include <stddef.h>", '#include "counts.h"', "int main(void) {"]
    for struct, fields in structs.items():
        lines += [f'printf("{struct}.{n} %zu\\n", offsetof(struct {struct}, {n}));' for n, _ in fields]
        lines.append(f'printf("{struct}. %zu\\n", sizeof(struct {struct}));')
    done = subprocess.run([compile_c(tmp_path, "\n".join([*lines, "}"]))], capture_output=True, text=True, check=True)
    found = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    expected = {
        f"{struct}.{name}": at for struct, fields in structs.items() for name, at in stallctl.offsets(fields).items()
    }
    assert found == expected


# -- a machine that is played -----------------------------------------------------------------------------------------

#: `./main CTL SCRIPT` executes blocks on vCPUs, each line of the script `VCPU ADDRESS HEX...`, an instruction per
#: word; an instruction that touches the stack has `@ADDRESS` behind it. A block that is known is not translated anew.
HOST = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct insn {
	uint64_t address, touches;
	uint8_t code[16];
	size_t size;
	void (*executed)(unsigned int, void *), *data;
	void (*touched)(unsigned int, uint32_t, uint64_t, void *);
};
struct begin { void (*cb)(unsigned int, void *); void *data; };
struct tb { char line[256]; size_t count, callbacks; struct insn insns[16]; struct begin begins[16]; };

static void (*translated)(uint64_t id, struct tb *tb);
static struct tb blocks[64];

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t, struct tb *)) { translated = cb; }
size_t qemu_plugin_tb_n_insns(const struct tb *tb) { return tb->count; }
struct insn *qemu_plugin_tb_get_insn(struct tb *tb, size_t i) { return &tb->insns[i]; }
uint64_t qemu_plugin_insn_vaddr(const struct insn *insn) { return insn->address; }
size_t qemu_plugin_insn_size(const struct insn *insn) { return insn->size; }
const void *qemu_plugin_insn_data(const struct insn *insn) { return insn->code; }
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *insn, void (*cb)(unsigned int, void *), int flags, void *data)
{ insn->executed = cb; insn->data = data; }
void qemu_plugin_register_vcpu_mem_cb(struct insn *insn, void (*cb)(unsigned int, uint32_t, uint64_t, void *), int f,
int rw, void *data)
{ insn->touched = cb; }
void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *tb, void (*cb)(unsigned int, void *), int flags, void *data)
{ tb->begins[tb->callbacks].cb = cb; tb->begins[tb->callbacks++].data = data; }

extern int qemu_plugin_version;
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

static struct tb *block_of(const char *line)
{
	char copy[256], *word, *save;
	struct tb *tb = blocks;
	uint64_t address;

	for (; tb->count; tb++)
		if (!strcmp(tb->line, line))
			return tb;
	strcpy(tb->line, line);
	strcpy(copy, line);
	address = strtoull(strtok_r(copy, " ", &save), NULL, 16);
	while ((word = strtok_r(NULL, " ", &save))) {
		struct insn *insn = &tb->insns[tb->count++];
		char *at = strchr(word, '@');
		unsigned int byte;

		if (at)
			insn->touches = strtoull(at + 1, NULL, 16);
		insn->address = address;
		for (; *word && *word != '@'; word += 2) {
			sscanf(word, "%2x", &byte);
			insn->code[insn->size++] = byte;
		}
		address += insn->size;
	}
	translated(7, tb);
	return tb;
}

int main(int argc, char **argv)
{
	char ctl[4096], line[256];
	char *arguments[] = { ctl };

	snprintf(ctl, sizeof(ctl), "ctl=%s", argv[1]);
	if (qemu_plugin_version != 1 || qemu_plugin_install(7, NULL, 1, arguments))
		return 1;
	while (fgets(line, sizeof(line), stdin)) {
		unsigned int vcpu = strtoul(line, NULL, 10);
		struct tb *tb;

		line[strcspn(line, "\n")] = 0;
		tb = block_of(strchr(line, ' ') + 1);
		for (size_t i = 0; i < tb->callbacks; i++)
			tb->begins[i].cb(vcpu, tb->begins[i].data);
		for (size_t i = 0; i < tb->count; i++) {
			struct insn *insn = &tb->insns[i];

			if (insn->executed)
				insn->executed(vcpu, insn->data);
			if (insn->touched)
				insn->touched(vcpu, 0, insn->touches, NULL);
		}
	}
	return 0;
}
"""
K = 0xFFFFFFFF81000000
#: Of a kernel of four functions: plain work, and the three that mean something to the plugin.
SPANS = [
    (K, K + 0x100, Role.PLAIN),
    (K + 0x100, K + 0x200, Role.FAULT),
    (K + 0x200, K + 0x300, Role.INTERRUPT),
    (K + 0x300, K + 0x400, Role.SWITCH),
]
PLAIN, FAULT, INTERRUPT, SWITCH = range(4)
NOP, LOCK, IRET = "90", "f0ff00", "48cf"
BEGIN, END = "400000 0f1f8052494700", "400000 0f1f8052494701"
USER = "400100 90"
WORK = f"{K + 0x10:x} {NOP} {LOCK} {NOP}"
CALLED = f"{K:x} {NOP} {NOP}"
FAULTS, INTERRUPTS = f"{K + 0x100:x} {NOP}", f"{K + 0x200:x} {NOP}"
RETURNS = f"{K + 0x20:x} {IRET}"


def goes(stack: int) -> str:
    return f"{K + 0x300:x} 4157@{stack:x}"


def comes(stack: int) -> str:
    return f"{K + 0x310:x} 415f@{stack:x}"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("host"), HOST, plugin.SOURCE / "counts.c")


def read(host: Path, ctl: Path, *script: str, phases: int = 4, sites: int = 16) -> Reading:
    """Run a script, whose blocks are on vCPU 0 where they do not say another one."""
    countctl.write(ctl, SPANS, vcpus=2, phases=phases, sites=sites)
    lines = [line if line[1] == " " else f"0 {line}" for line in script]
    subprocess.run([host, ctl], input="\n".join(lines) + "\n", text=True, check=True)
    return countctl.read(ctl)


def spans(reading: Reading, phase: int = 0) -> Mapping[int, Counted]:
    return dict(reading.phases[phase].spans)


def test_nothing_is_counted_before_the_first_mark_and_after_the_last(host: Path, tmp_path: Path) -> None:
    found = read(host, tmp_path / "ctl", USER, FAULTS, WORK, BEGIN, END, USER, FAULTS, WORK)
    assert found.loaded
    assert found.begun == 1
    assert found.phases[0].spans == ()
    assert found.phases[0].sites == ()


def test_a_page_fault_and_a_system_call_are_counted_apart(host: Path, tmp_path: Path) -> None:
    found = spans(read(host, tmp_path / "ctl", BEGIN, FAULTS, WORK, WORK, USER, WORK, CALLED, USER, END))
    assert found[PLAIN] == Counted(instructions=(6, 5), locked=(2, 1), entered=(0, 1))
    assert found[FAULT].entered == (1, 0)


def test_each_phase_has_counters_of_its_own_and_vcpus_are_added_up(host: Path, tmp_path: Path) -> None:
    found = read(host, tmp_path / "ctl", BEGIN, WORK, END, BEGIN, WORK, f"1 {USER}", f"1 {WORK}", END)
    assert [spans(found, phase)[PLAIN].locked for phase in (0, 1)] == [(0, 1), (0, 2)]


def test_what_an_interrupt_does_is_left_out_and_the_fault_goes_on_after_it(host: Path, tmp_path: Path) -> None:
    inside = (INTERRUPTS, WORK, INTERRUPTS, WORK, RETURNS, WORK, RETURNS)
    found = spans(read(host, tmp_path / "ctl", BEGIN, FAULTS, WORK, *inside, WORK, USER, END))
    assert found[PLAIN].locked == (2, 0)
    assert INTERRUPT not in found


def test_a_task_that_waits_in_a_fault_is_in_it_when_it_comes_back_on_another_vcpu(host: Path, tmp_path: Path) -> None:
    a, b = 0xFFFFC90000101000, 0xFFFFC90000202000
    other = (comes(b), WORK)  # a thread of the kernel, about which nothing is known: not counted
    back = (f"1 {goes(b + 0x4000)}", f"1 {comes(a)}", f"1 {WORK}", f"1 {USER}")
    found = spans(read(host, tmp_path / "ctl", BEGIN, FAULTS, WORK, goes(a), *other, *back, END))
    assert found[PLAIN].locked == (2, 0)


def test_a_block_that_reaches_into_the_next_function_is_shared(host: Path, tmp_path: Path) -> None:
    across = f"{K + 0xFE:x} {NOP} {NOP} {NOP}"
    found = spans(read(host, tmp_path / "ctl", BEGIN, across, END))
    assert (found[PLAIN].instructions, found[FAULT].instructions) == ((0, 2), (0, 1))


def test_sites_are_told_apart_and_those_without_room_are_in_their_function(host: Path, tmp_path: Path) -> None:
    other = f"{K + 0x40:x} {LOCK} {LOCK}"
    found = read(host, tmp_path / "ctl", BEGIN, WORK, other, other, END, sites=2)
    assert [(site.address - K, site.executed) for site in found.phases[0].sites] == [(0x11, (0, 1)), (0x40, (0, 2))]
    assert found.lost_sites == 1
    assert spans(found)[PLAIN].locked == (0, 5)


def test_phases_without_room_are_not_counted_and_told(host: Path, tmp_path: Path) -> None:
    found = read(host, tmp_path / "ctl", *([BEGIN, WORK, END] * 3), phases=2)
    assert found.begun == 3
    assert len(found.phases) == 2


@pytest.mark.parametrize("content", [b"", b"x" * 200, countctl.block(SPANS, vcpus=1, phases=1, sites=1)])
def test_what_is_no_control_block_is_refused(host: Path, tmp_path: Path, content: bytes) -> None:
    ctl = tmp_path / "ctl"
    ctl.write_bytes(content)
    done = subprocess.run([host, ctl], input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(ctl) in done.stderr
    with pytest.raises(ValueError, match="control block"):
        countctl.read(ctl)
