"""Which C functions a series touches: those whose code differs between the base's text of a file and the patched one.

Both texts are cut into functions, and the functions are compared by name, without comments and white space. Hunks are
not looked at: the function that git writes behind `@@` is the one above the context, which often is another one. As the
texts before and after the whole series are compared, what one patch adds and a later one takes back is not touched.

The cut relies on the kernel's style: a function begins in column 0 and ends with a `}` in column 0. Unlike counting
braces this survives `#ifdef` branches that each open a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Looks like `name(` in front of a body, and is not the function's name.
_ATTRIBUTE = re.compile(
    r"__attribute__|__releases|__acquires|__must_hold|__cond_acquires|__printf|__scanf|__aligned|__section|__alloc_size"
    r"|__malloc|__nonnull|__no_sanitize|__counted_by|__assume_aligned|__realloc_size|__cleanup|__context_unsafe|typeof"
)
_SYSCALL = re.compile(r"^(?:COMPAT_)?SYSCALL_DEFINE\d$")
#: How the syscall macros call what they make of the body; the first is where gcc leaves the code.
_SYSCALL_NAMES = ("__do_sys_{}", "__se_sys_{}", "__x64_sys_{}")

_LEXICAL = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?""",
    re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*(?:\\\n(?:[^\n\\]|\\[^\n])*)*", re.MULTILINE | re.DOTALL)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)((?:\\\n|[^\n])*)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_MACRO_NAME = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, order=True)
class Function:
    """A function of the kernel tree, by the file that defines it."""

    path: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """Where a function stands in a text."""

    name: str
    first: int  # line, counted from 1: that of the first word of its signature
    last: int  # that of the closing brace
    code: str  # without comments, white space folded


def definitions(text: str) -> tuple[Definition, ...]:
    """Return the functions that `text` defines, in order; a name may stand twice (branches of an `#ifdef`)."""
    bare = _without_comments(text)
    shape = _DIRECTIVE.sub(_blank, _without_strings(bare)).split("\n")
    lines = bare.split("\n")
    found: list[Definition] = []
    head: list[str] = []  # what stands in front of a brace since the last end of something
    first = 0
    at = 0
    while at < len(shape):
        line = shape[at]
        if not head:
            first = at
        head.append(line)
        before = _until_body(head)
        if before is not None:
            last = _end(shape, first, at)
            for name in _names(before):
                code = " ".join(" ".join(lines[first : last + 1]).split())
                found.append(Definition(name=name, first=first + 1, last=last + 1, code=code))
            at, head = last, []
        elif _closed("\n".join(head)):
            head = []
        at += 1
    return tuple(found)


def function_at(text: str, line: int) -> str | None:
    """Return the name of the function that a line of `text` (counted from 1) belongs to; None for none."""
    return next((one.name for one in definitions(text) if one.first <= line <= one.last), None)


def between(before: str, after: str) -> frozenset[str]:
    """Return the names of the functions whose code differs, or that are in one of the two texts only.

    Functions that use a macro whose definition differs count as well.
    """
    old, new = _by_name(before), _by_name(after)
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    macros = _macros(before), _macros(after)
    other = {name for name in macros[0].keys() | macros[1].keys() if macros[0].get(name) != macros[1].get(name)}
    if other:
        changed |= {name for code in (old, new) for name, body in code.items() if other & set(_WORD.findall(body))}
    return frozenset(changed)


def of_series(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Function, ...]:
    """Return the functions that differ between two sets of texts by path, sorted; a file that is not there is empty."""
    paths = sorted(path for path in before.keys() | after.keys() if path.endswith((".c", ".h")))
    return tuple(
        Function(path, name) for path in paths for name in sorted(between(before.get(path, ""), after.get(path, "")))
    )


def callers(text: str, names: Iterable[str]) -> frozenset[str]:
    """Return the functions of `text` that mention one of `names` and are not among them."""
    wanted = set(names)
    return frozenset(
        one.name
        for one in definitions(text)
        if one.name not in wanted and wanted & set(_WORD.findall(_without_strings(one.code)))
    )


# -- the text ---------------------------------------------------------------------------------------------------------


def _blank(match: re.Match[str]) -> str:
    return "".join("\n" if char == "\n" else " " for char in match[0])


def _without_comments(text: str) -> str:
    """Comments become blanks of the same shape; strings stay."""
    return _LEXICAL.sub(lambda match: _blank(match) if match[0].startswith("/") else match[0], text)


def _without_strings(text: str) -> str:
    return _LEXICAL.sub(_blank, text)


def _by_name(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in definitions(text):
        found[one.name] = found.get(one.name, "") + one.code
    return found


def _macros(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _DEFINE.finditer(_without_comments(text)):
        found[match[1]] = found.get(match[1], "") + " ".join(match[2].replace("\\\n", " ").split())
    return found


# -- the shape --------------------------------------------------------------------------------------------------------


def _until_body(head: list[str]) -> str | None:
    """Return what stands before the first brace outside of parentheses; None when there is none yet."""
    depth = 0
    text = "\n".join(head)
    for index, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "{" and depth <= 0:
            return text[:index]
    return None


def _closed(text: str) -> bool:
    """Whether nothing that was begun goes on: a declaration, a macro on a line of its own, an empty line."""
    stripped = text.rstrip()
    if not stripped or text.count("(") > text.count(")"):
        return not stripped
    return stripped.endswith((";", "}")) or stripped != text.rstrip(" \t")


def _end(shape: list[str], first: int, at: int) -> int:
    """Return the index of the line with which the body ends that is opened in line `at`."""
    text = "\n".join(shape[first : at + 1])
    if text.count("{") <= text.count("}"):
        return at
    for index in range(at + 1, len(shape)):
        if shape[index].startswith("}"):
            return index
    return len(shape) - 1


def _names(head: str) -> tuple[str, ...]:
    """Return the names under which the object file may know what follows `head`; () when it is no function."""
    depth = 0
    for match in re.finditer(r"[()=]|[A-Za-z_]\w*", head):
        word = match[0]
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif depth == 0 and word == "=":
            return ()
        elif depth == 0 and not _ATTRIBUTE.fullmatch(word) and re.match(r"\s*\(", head[match.end() :]):
            if _SYSCALL.match(word):
                name = _MACRO_NAME.search(head, match.end())
                return tuple(form.format(name[0]) for form in _SYSCALL_NAMES) if name else ()
            return (word,)
    return ()
