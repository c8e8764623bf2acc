"""Any text of a guest as text that can be shown: what has no glyph, or no place in XML, as its escape."""

from __future__ import annotations

import re

#: What XML 1.0 cannot hold, and what a reader could not see.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def shown(text: str) -> str:
    """Return `text` with what cannot be held or seen as `\\x1b` or `\\ud800`; a line may end in CR LF."""
    return _UNPRINTABLE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str, most: int) -> str:
    """Return `text` as one line of at most `most` characters."""
    line = " ".join(shown(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def cut(text: str, most: int) -> str:
    """Keep both ends of a text of more than `most` characters (at least 200): how it began and how it ended."""
    if len(text) <= most:
        return text
    half = most // 2 - 50
    return (
        f"{text[:half]}\n[... {len(text) - 2 * half} characters cut here; all of it is in the logs ...]\n{text[-half:]}"
    )


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
