"""What makes two findings the same bug: their kind and what they accuse, without addresses and numbers."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_SPACE = re.compile(r"\s+")

#: What the compiler appends when it clones or splits a function: foo.isra.0, foo.part.0.cold, foo.llvm.1234.
#: It changes from build to build and says nothing about the bug.
_CLONE = re.compile(r"(?:\.(?:isra|constprop|part|clone|cold|llvm|lto_priv|__uniq|unlikely|localalias)(?:\.\d+)*)+$")

LONGEST = 160  # characters of a title; a guest may print any length


def plain_function(name: str) -> str:
    """Return the function's name as it is written in the source."""
    return _CLONE.sub("", name)


def normalise(text: str) -> str:
    """Return `text` with addresses as `ADDR`, free-standing numbers as `N`, and single spaces."""
    text = _ADDRESS.sub("ADDR", text)
    text = _NUMBER.sub("N", text)
    return _SPACE.sub(" ", text).strip()


def title(text: str) -> str:
    """Return `text` as one printable line of bounded length."""
    line = _SPACE.sub(" ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def signature(kind: str, what: str) -> str:
    """Return `kind:what` with `what` normalised; equal for two sightings of one bug."""
    return f"{kind}:{title(normalise(what))}"
