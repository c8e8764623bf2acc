"""Series from the lists' archive, fetched with b4: `lore:MESSAGE-ID` and `b4:CHANGE-ID`.

b4 only brings the thread; which of its mails are the series is worked out as for an mbox that was saved by hand.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from rig import proc
from rig.errors import ConfigError, HostError

PREFIXES = ("lore:", "b4:")
TIMEOUT = 300.0  # seconds
THREAD = "thread.mbox"

_MESSAGE = re.compile(r"(?:https?://[^/\s]+/[^/\s]+/|<)?([^/\s<>@-][^/\s<>@]*@[^/\s<>@]+)[/>]?")
_CHANGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{3,200}")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "XDG_CONFIG_HOME")

#: b4 has no command that takes a change-id from anybody but the author. Its arguments: the change-id and a file.
#: Mails that only mention the change-id, as a prerequisite, are of other series.
_BY_CHANGE = r"""
import argparse, re, sys
import b4
b4.setup_config(argparse.Namespace(config={}))
change, found = sys.argv[1], {}
for mail in b4.get_pi_search_results(f'nq:"change-id:{change}"', nocache=True, full_threads=False) or []:
    name = b4.LoreMessage.get_clean_msgid(mail)
    body = b4.LoreMessage.get_payload(mail)[0]
    if name and name not in found and re.search(rf"^change-id:\s*{re.escape(change)}\s*$", body, re.M | re.I):
        for answer in b4.get_pi_thread_by_msgid(name, nocache=True) or []:
            found[b4.LoreMessage.get_clean_msgid(answer)] = answer
if not found:
    sys.exit("the archive knows no such change-id, or cannot be reached")
with open(sys.argv[2], "wb") as file:
    b4.save_mboxrd_mbox(list(found.values()), file)
"""


def fetch(origin: str) -> tuple[bytes, str]:
    """Return the mbox of the thread that `origin` names and the message-id or change-id.

    Raises ConfigError for an id that is none, and HostError when b4 is not there or cannot reach the archive.
    """
    kind, _, word = origin.partition(":")
    form = _MESSAGE if kind == "lore" else _CHANGE
    match = form.fullmatch(word.strip())
    if match is None:
        what = "message-id" if kind == "lore" else "change-id"
        raise ConfigError(f"series={origin}: {word!r} is no {what}", hint="lore:MESSAGE-ID or b4:CHANGE-ID")
    name = match[1] if kind == "lore" else match[0]
    with tempfile.TemporaryDirectory(prefix="rig-lore-") as folder:
        file = Path(folder) / THREAD
        argv = _by_message(name, file) if kind == "lore" else _by_change(name, file)
        if argv is None:
            raise HostError(f"series={origin}: b4 is not installed", hint=f"pip install b4, or {_BY_HAND}")
        proxies = {key: os.environ[key] for word in _PROXIES for key in (word, word.upper()) if key in os.environ}
        done = proc.run(argv, timeout=TIMEOUT, cwd=Path(folder), env=proxies)
        if not done.ok or not file.is_file():
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            why = "it took too long" if done.timed_out else lines[-1] if lines else f"status {done.status}"
            raise HostError(f"series={origin}: b4 cannot fetch it: {why}", hint=_BY_HAND)
        return file.read_bytes(), name


_BY_HAND = "save the thread's mbox.gz from the archive's web page and give series=FILE"


def _by_message(name: str, file: Path) -> list[str | Path] | None:
    beside = Path(sys.executable).with_name("b4")
    program = str(beside) if beside.exists() else shutil.which("b4")
    if program is None:
        return None
    return [program, "--no-interactive", "--no-stdin", "mbox", "-C", "-o", file.parent, "-n", file.name, name]


def _by_change(name: str, file: Path) -> list[str | Path] | None:
    if importlib.util.find_spec("b4") is None:
        return None
    return [sys.executable, "-c", _BY_CHANGE, name, file]
