"""Series from the lists' archive: the real b4 against a small archive on this machine."""

from __future__ import annotations

import gzip
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from threads import ANSWERS, V1, V2, mail

from rig.errors import ConfigError, HostError
from rig.trees import lore, series

CHANGE = "20260101-a-thing-0123456789ab"
COVER = mail("[PATCH 0/2] a thing", f"words\n\nchange-id: {CHANGE}\n", key="cover")
OTHER = mail("[PATCH 0/3] another", f"words\n\nprerequisite-change-id: {CHANGE}:v1\n", key="other")
THREAD = "".join([COVER, *V1[1:], *ANSWERS[:2], *V2])


class Archive(BaseHTTPRequestHandler):
    """Answers as public-inbox does: a thread by the id of a message in it, and a search."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(urllib.parse.unquote(self.path))
        found = "@b.c/t.mbox.gz" in self.asked[-1] and "absent" not in self.asked[-1]
        self._answer(THREAD if found else None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.asked.append(urllib.parse.unquote_plus(self.path + self.rfile.read(length).decode()))
        self._answer(COVER + OTHER if CHANGE in self.asked[-1] else None)

    do_HEAD = do_GET

    def _answer(self, text: str | None) -> None:
        body = gzip.compress(text.encode()) if text else b"none"
        self.send_response(200 if text else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Point b4 to a small archive, and return what it asks of it."""
    asked: list[str] = []
    handler = type("Handler", (Archive,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path / "home"
    home.mkdir()
    place = f"http://127.0.0.1:{server.server_address[1]}/all"
    (home / ".gitconfig").write_text(f"[b4]\n\tmidmask = {place}/%s\n[user]\n\tname = A\n\temail = a@b.c\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in lore._PROXIES[:3]:
        for word in (name, name.upper()):
            monkeypatch.delenv(word, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield asked
    server.shutdown()
    server.server_close()


def added(origin: str) -> list[str]:
    return [patch.mail.split(b"\n+")[-1].split(b"\n")[0].decode() for patch in series.read(origin).patches]


def test_a_message_brings_its_version_of_the_series(archive: list[str], tmp_path: Path) -> None:
    assert added("lore:wanted@b.c") == ["v2-first", "v2-second"]
    assert added("lore:<cover@b.c>") == ["v1-first", "v1-second"]
    assert any("wanted@b.c" in one for one in archive)
    saved = tmp_path / "saved.mbox"
    saved.write_text(THREAD)
    fetched = series.read("lore:wanted@b.c")
    assert fetched.key == series.read("lore:wanted@b.c").key
    assert [one.subject for one in fetched.patches] == [one.subject for one in series.read(str(saved)).patches]


def test_a_change_id_brings_the_newest_version(archive: list[str]) -> None:
    assert added(f"b4:{CHANGE}") == ["v2-first", "v2-second"]
    assert not any("other@b.c" in one for one in archive)  # that only mentions it


def test_what_cannot_be_had_is_said(archive: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for origin in ("lore:absent@b.c", "b4:20260101-no-such-thing"):
        with pytest.raises(HostError, match="b4 cannot fetch it: ") as caught:
            series.read(origin)
        assert "save the thread's mbox.gz" in str(caught.value.hint)
    for origin in ("lore:nonsense", "lore:--help@x", "lore:a b@c", "b4:", "b4:--x", "b4:a/../b"):
        with pytest.raises(ConfigError, match=r"is no (message|change)-id"):
            series.read(origin)


def test_without_b4_it_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="b4 is not installed") as caught:
        series.read("lore:a@b.c")
    assert "pip install b4, or save the thread" in str(caught.value.hint)
