"""A thread as a list's archive keeps it: two versions of a series, and answers of all kinds."""

from __future__ import annotations

DIFF = "---\ndiff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1 +1 @@\n-a\n+{0}\n"
SEPARATOR = "From mboxrd@z Thu Jan  1 00:00:00 1970\n"


def mail(subject: str, body: str = "words\n", *, key: str = "", headers: str = "") -> str:
    name = key or subject.replace(" ", "-").replace("[", "").replace("]", "")
    return f"{SEPARATOR}From: A <a@b.c>\nSubject: {subject}\nMessage-ID: <{name}@b.c>\n{headers}\n{body}\n"


def patch(subject: str, what: str, *, key: str = "", headers: str = "In-Reply-To: <cover@b.c>\n") -> str:
    return mail(subject, DIFF.format(what), key=key, headers=headers)


V1 = [
    mail("[PATCH 0/2] a thing", key="cover"),
    patch("[PATCH 2/2] second", "v1-second"),
    patch("[PATCH 1/2] first", "v1-first"),
]
ANSWERS = [
    mail("Re: [PATCH 1/2] first", "> diff --git a/x b/x\nReviewed-by: B <b@b.c>\n"),
    mail("RE: [PATCH 2/2] second", DIFF.format("proposal")),
    mail("Aw: [PATCH 2/2] second", "\xff\xfe", headers="Content-Type: text/plain; charset=klingon\n"),
    mail(
        "Re: [PATCH 2/2] second",
        "--x\nContent-Type: text/plain\n\nsigned\n--x--\n",
        key="signed",
        headers='Content-Type: multipart/signed; boundary="x"\n',
    ),
]
V2 = [
    mail("[PATCH v2 0/2] a thing", key="cover-v2"),
    patch("[PATCH v2 1/2] first", "v2-first"),
    patch("[PATCH v2 2/2] second", "v2-second", key="wanted"),
]
