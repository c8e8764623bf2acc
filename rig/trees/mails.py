"""Mails with patches: an mbox is split, and of a whole thread from a list's archive the series is picked out.

What an archive gives holds answers, cover letters, earlier versions and copies. The series is the newest version in it,
or the one that a wanted message belongs to, and it must be whole. The mails stay as they are, byte for byte: what
reviewers' trailers would add to the text changes no kernel, and a series must not be another one after each answer.
"""

from __future__ import annotations

import email
import email.policy
import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath

from rig.errors import SeriesError
from rig.trees.git import IDENTITY

LARGEST = 256 << 20  # bytes of an mbox, unpacked

DIFF_START = re.compile(r"^(?:diff --git |--- \S)", re.MULTILINE)
_MAIL_START = re.compile(rb"^From \S+.*\d\d:\d\d:\d\d.*$", re.MULTILINE)
_ANSWER = re.compile(r"(?:re|aw|sv|fwd?)\s*:", re.IGNORECASE)
_TAGS = re.compile(r"^(?:\s*\[([^\]]*)\])+")
_RAW_DIFF = re.compile(rb"^(?:diff --git |--- \S)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail that carries a diff, and what its subject says of its place."""

    label: str
    data: bytes
    version: int  # 1 unless it says v2 or the like
    number: int  # 0: it does not say
    count: int
    message_id: str
    answers: bool  # to another mail, so it comes from a thread


def load(path: Path) -> bytes:
    """Return the bytes of a file, unpacked when they are gzip's; raises SeriesError when there are too many."""
    data = path.read_bytes() if path.stat().st_size <= LARGEST else None
    if data is not None and data.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as file:
                data = file.read(LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SeriesError(f"{path.name}: a damaged gzip file: {error}") from None
    if data is None or len(data) > LARGEST:
        raise SeriesError(f"{path.name}: larger than {LARGEST >> 20} MiB, which is no series")
    return data


def split(data: bytes, name: str, *, wanted: str = "") -> list[tuple[str, bytes]]:
    """Split an mbox (or take a bare patch) and return the series in it: the mails with their labels, in order.

    Of several versions it is the one that the message with the id `wanted` belongs to, else the newest. Raises
    SeriesError for what is damaged, and for a thread in which patches of that version are missing.
    """
    if not data.strip():
        raise SeriesError(f"{name}: the file is empty")
    if b"\0" in data:
        raise SeriesError(f"{name}: not a text file (NUL at byte {data.index(0)})")
    chunks = _chunks(data, name)
    kept: list[Mail] = []
    version = None
    for index, chunk in enumerate(chunks, start=1):
        label = name if len(chunks) == 1 else f"{name}#{index}"
        data = chunk if re.match(rb"(?:From |[A-Za-z-]+: )", chunk) else _bare(chunk, name)
        message = _parsed(data)
        if _ANSWER.match(subject(data, keep_prefix=True)):
            continue
        mail = _mail(label, data, message)
        if wanted and mail.message_id == wanted:
            version = mail.version
        if _has_diff(label, data):
            kept.append(mail)
    series = kept if len(chunks) == 1 else _series(kept, name, version)
    return [(mail.label, mail.data) for mail in series]


def _chunks(data: bytes, name: str) -> list[bytes]:
    starts = [match.start() for match in _MAIL_START.finditer(data)]
    if data.startswith(b"From ") and (not starts or starts[0] != 0):
        raise SeriesError(f"{name}: a damaged mbox (its first `From ` line has no date)")
    if starts and starts[0] != 0 and data[: starts[0]].strip():
        starts.insert(0, 0)
    ends = [*starts[1:], len(data)] if starts else []
    return [data[a:b] for a, b in zip(starts, ends, strict=True)] or [data]


def _has_diff(label: str, data: bytes) -> bool:
    """Whether a mail carries a diff; a cover letter that cannot be read is a cover letter all the same."""
    try:
        return DIFF_START.search(text(data, label)) is not None
    except SeriesError:
        if _RAW_DIFF.search(data):
            raise
        return False


def _mail(label: str, data: bytes, message: Message) -> Mail:
    tags = match[0] if (match := _TAGS.match(subject(data, keep_prefix=True))) else ""
    version = re.search(r"\bv(\d{1,4})\b", tags, re.IGNORECASE)
    number = re.search(r"\b(\d{1,4})/(\d{1,4})\b", tags)
    return Mail(
        label=label,
        data=data,
        version=int(version[1]) if version else 1,
        number=int(number[1]) if number else 0,
        count=int(number[2]) if number else 0,
        message_id=str(message.get("Message-ID", "")).strip().strip("<>"),
        answers=message.get("In-Reply-To") is not None or message.get("References") is not None,
    )


def _series(mails: Sequence[Mail], name: str, version: int | None) -> list[Mail]:
    """Pick one version and put it in order, as an mbox from an archive is in order of arrival."""
    once = {mail.message_id or mail.label: mail for mail in mails}  # a copy may have come over another list
    newest = version if version is not None else max((mail.version for mail in once.values()), default=1)
    chosen = [mail for mail in once.values() if mail.version == newest]
    numbered = [mail for mail in chosen if mail.number]
    thread = len(once) < len(mails) or len(chosen) < len(once) or any(mail.answers for mail in mails)
    if not thread and len(numbered) == len(chosen):
        return sorted(chosen, key=lambda mail: mail.number)
    if not thread or not numbered:
        return chosen
    # In a thread, what has no number beside mails that have one is a proposal in an answer.
    count = max(mail.count for mail in numbered)
    missing = sorted(set(range(1, count + 1)) - {mail.number for mail in numbered})
    what = f"{name}: version {newest} of the series" if newest > 1 else f"{name}: the series"
    if missing:
        raise SeriesError(
            f"{what} is not whole: no patch {', '.join(map(str, missing[:5]))} of {count} in the thread",
            hint="save the whole thread; of a version that was sent in part, put the patches into a folder yourself",
        )
    if len(numbered) > count:
        raise SeriesError(
            f"{what} has {len(numbered)} mails for {count} patches",
            hint="put those that are meant into a folder, or name one of their messages with lore:MESSAGE-ID",
        )
    return sorted(numbered, key=lambda mail: mail.number)


def _bare(diff: bytes, name: str) -> bytes:
    """Wrap a plain diff, such as quilt keeps, in the mail that `git am` wants."""
    cut = re.search(rb"^(?:diff --git |--- |Index: )", diff, re.MULTILINE)
    words, rest = (diff[: cut.start()], diff[cut.start() :]) if cut else (b"", diff)
    title = PurePosixPath(name).stem
    author = f"{IDENTITY['GIT_AUTHOR_NAME']} <{IDENTITY['GIT_AUTHOR_EMAIL']}>"
    head = f"From: {author}\nDate: Sat, 1 Jan 2000 00:00:00 +0000\nSubject: {title}\n\n"
    return head.encode() + words.strip() + b"\n---\n" + rest


def _parsed(mail: bytes) -> Message:
    return email.message_from_bytes(mail, policy=email.policy.default)


def text(mail: bytes, name: str) -> str:
    """Return the body of a mail, decoded; raises SeriesError, which names the mail, for one that is not plain text."""
    try:
        message = _parsed(mail)
        charset = message.get_content_charset() or "utf-8"
        payload = message.get_payload(decode=True)
        body = payload if isinstance(payload, bytes) else mail
        body.decode(charset)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SeriesError(
            f"{name}: not valid {error.encoding.upper()} at byte {error.start} (line {line} of its body)",
            hint="save the patch as UTF-8, or declare its charset in a Content-Type header",
        ) from None
    except LookupError as error:
        raise SeriesError(f"{name}: {error}") from None
    if message.is_multipart():
        raise SeriesError(
            f"{name}: a multipart mail", hint="save the patch as plain text, or take the mbox from the list's archive"
        )
    return body.decode(charset)


def subject(mail: bytes, *, keep_prefix: bool = False) -> str:
    """Return the subject of a mail, without the tags in brackets unless `keep_prefix`."""
    words = " ".join(str(_parsed(mail).get("Subject", "")).split())
    return words if keep_prefix else re.sub(r"^(?:\[[^\]]*\]\s*)+", "", words)
