"""Which functions a change touches: on C as the kernel writes it, and on the patches that come along."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rig.touches.touched import Function, between, callers, definitions, function_at, of_series

TEXT = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/mm.h>

#define LIMIT(x) \\
	((x) + 1)

struct thing {
	int (*call)(int a);
};

static const struct thing things[] = {
	{ .call = NULL },
};

/* A comment with first(int a) { in it. */
static __always_inline vm_fault_t
first(struct vm_fault *vmf,
      unsigned long end)
	__releases(ptl)
{
	char c = '{';

	/* } */
	return "}"[0] == c;
}
EXPORT_SYMBOL_GPL(first);

#ifdef CONFIG_MMU
static inline void stub(void) { }
#else
static inline void stub(void) { BUG(); }
#endif

int second(int a)
{
#ifdef CONFIG_NUMA
	if (a) {
#else
	if (!a) {
#endif
		return LIMIT(a);
	}
	return first(NULL, a);
}

SYSCALL_DEFINE2(third, int, a, int, b)
{
	return second(a) + b;
}

static DEFINE_SPINLOCK(lock);
int last(void) { return 1; }
"""


def test_functions_are_cut_out_of_c_as_the_kernel_writes_it() -> None:
    found = [one.name for one in definitions(TEXT)]
    assert found == ["first", "stub", "stub", "second", "__do_sys_third", "__se_sys_third", "__x64_sys_third", "last"]


def test_a_line_belongs_to_the_function_around_it() -> None:
    lines = TEXT.split("\n")
    where = {name: function_at(TEXT, lines.index(line) + 1) for name, line in {
        "signature": "      unsigned long end)",
        "body": "	/* } */",
        "after an ifdef": "	return first(NULL, a);",
        "struct": "	int (*call)(int a);",
        "between": "EXPORT_SYMBOL_GPL(first);",
    }.items()}  # fmt: skip
    assert where == {
        "signature": "first",
        "body": "first",
        "after an ifdef": "second",
        "struct": None,
        "between": None,
    }


def test_the_function_above_the_hunk_is_not_touched() -> None:
    """What git writes behind `@@` for a change in the first lines of `second` is `first`."""
    assert between(TEXT, TEXT.replace("if (!a) {", "if (a < 0) {")) == {"second"}


def test_comments_and_white_space_touch_nothing() -> None:
    assert not between(TEXT, TEXT.replace("/* } */", "/* nothing { here */").replace("= c;", "=\n\t\tc;"))


def test_what_comes_and_goes_is_touched() -> None:
    more = TEXT + "\nint fresh(void)\n{\n\treturn 0;\n}\n"
    assert between(TEXT, more) == between(more, TEXT) == {"fresh"}


def test_a_macro_touches_who_uses_it() -> None:
    assert between(TEXT, TEXT.replace("((x) + 1)", "((x) + 2)")) == {"second"}


def test_a_string_is_part_of_the_code() -> None:
    assert between(TEXT, TEXT.replace('"}"', '"{"')) == {"first"}


def test_callers_are_those_that_mention_it() -> None:
    assert callers(TEXT, ["first"]) == {"second"}
    assert callers(TEXT, ["second"]) == {"__do_sys_third", "__se_sys_third", "__x64_sys_third"}


def test_files_that_are_no_c_do_not_count() -> None:
    changed = of_series(
        {"mm/a.c": TEXT, "Makefile": "a"}, {"mm/a.c": TEXT.replace("return 1", "return 2"), "Makefile": "b"}
    )
    assert changed == (Function("mm/a.c", "last"),)


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}x", fullmatch=True)
bodies = st.lists(
    st.sampled_from(["if (a) {", "}", "b(\"}{\", '{');", "/* { */", "return;", "#ifdef X", "#endif"]), max_size=6
)


def render(functions: dict[str, list[str]]) -> str:
    return "\n\n".join(
        f"static int {name}(int a)\n{{\n" + "".join(f"\t{line}\n" for line in body) + "}"
        for name, body in functions.items()
    )


@given(st.dictionaries(names, bodies, max_size=6), st.data())
def test_exactly_the_changed_functions_are_touched(functions: dict[str, list[str]], data: st.DataObject) -> None:
    """Also when braces in a body do not balance, as column 0 is what counts."""
    assert [one.name for one in definitions(render(functions))] == list(functions)
    changed = data.draw(st.sets(st.sampled_from(sorted(functions)))) if functions else set()
    after = {name: [*body, "more();"] if name in changed else body for name, body in functions.items()}
    assert between(render(functions), render(after)) == changed


@given(st.text(alphabet="{}()[];=\n \t\"'/*\\#ax", max_size=80))
def test_any_text_is_survived(text: str) -> None:
    count = text.count("\n") + 1
    for one in definitions(text):
        assert 1 <= one.first <= one.last <= count
