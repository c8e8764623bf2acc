"""Reports of the sanitizers and of the memory allocators, as rows of the table of formats."""

from __future__ import annotations

import re

from rig.splats.rows import FUNCTION, TRACE, Format, row

_KASAN_PROOF = re.compile(r"(?:Read|Write|Free|Access|Invalid)\b.* (?:addr|of size)|CPU: \d+ |Call [Tt]race:")
_ACCESS = re.compile(r"(?P<access>Read|Write) (?:of size|at|in|by)\b")
_RACE = re.compile(r"(?:race at|(?:read|write|marked|assert no)\b.{0,40} (?:to|at) 0x)|" + TRACE.pattern)
_SLUB = re.compile(r"-{20,}|(?:Slab|Object|Allocated|Freed|INFO:|CPU: \d+) ?")
_LEAK = re.compile(r"\s+comm \"|\s+backtrace|unreferenced object 0x")
_SIZE = re.compile(r"unreferenced object 0x[0-9a-f]+ \(size (?P<size>\d+)\)")

SANITIZERS = (
    # `double-free or invalid-free` until v6.0
    row(
        "kasan",
        rf"BUG: KASAN: double-free or invalid-free in {FUNCTION}",
        "KASAN: invalid-free",
        fatal=True,
        whole=True,
        proof=_KASAN_PROOF,
    ),
    row(
        "kasan",
        rf"BUG: KASAN: (?P<what>(?:double|invalid)-free) in {FUNCTION}",
        "KASAN: invalid-free",
        fatal=True,
        whole=True,
        proof=_KASAN_PROOF,
    ),
    row(
        "kasan",
        rf"BUG: KASAN: (?P<what>[\w-]+(?: or [\w-]+)?) in +(?:{FUNCTION}|\(null\)|0x[0-9a-f]+)",
        "KASAN: {what} {access}",
        fatal=True,
        whole=True,
        proof=_KASAN_PROOF,
        more=_ACCESS,
    ),
    # until v4.10, where no shadow exists
    row(
        "kasan",
        r"BUG: KASAN: (?P<what>[\w-]+) on address [0-9a-f]+",
        "KASAN: {what} {access}",
        fatal=True,
        whole=True,
        proof=_KASAN_PROOF,
        more=_ACCESS,
    ),
    # a tag mismatch that arm64 notices later
    row(
        "kasan",
        r"BUG: KASAN: (?P<what>invalid-access)$",
        "KASAN: {what}",
        fatal=True,
        whole=True,
        proof=re.compile(r"Asynchronous fault|" + _KASAN_PROOF.pattern),
    ),
    # v4.0 to v4.3 wrote `BUG: KASan: use after free in f+0x1/0x2 at addr ffff...`.
    *(
        row(
            "kasan",
            rf"BUG: KASan: {what} in {FUNCTION}",
            title,
            fatal=True,
            whole=True,
            proof=_KASAN_PROOF,
            more=_ACCESS,
        )
        for what, title in (
            ("use after free", "KASAN: use-after-free {access}"),
            ("out of bounds access", "KASAN: out-of-bounds {access}"),
        )
    ),
    row("kmsan", rf"BUG: KMSAN: (?P<what>[\w -]+?) in {FUNCTION}", "KMSAN: {what}", bare=True, whole=True, trace=False),
    row(
        "kcsan",
        r"BUG: KCSAN: data-race in (?P<one>[\w.]+) / (?P<two>[\w.]+)",
        "KCSAN: data-race in {pair}",
        place=False,
        whole=True,
        proof=_RACE,
    ),
    row(
        "kcsan",
        rf"BUG: KCSAN: (?P<what>[\w-]+(?:: [\w ]+?)?) in {FUNCTION}",
        "KCSAN: {what}",
        bare=True,
        whole=True,
        trace=False,
        proof=_RACE,
    ),
    row(
        "other",
        rf"BUG: KFENCE: (?P<what>use-after-free|out-of-bounds|[\w -]+?)(?: read| write)? in {FUNCTION}",
        "KFENCE: {what}",
        fatal=True,
        bare=True,
        whole=True,
        trace=False,
        proof=re.compile(r".* (?:at|0x[0-9a-f]+) .*\(in kfence-#|" + TRACE.pattern),
    ),
    row("ubsan", r"UBSAN: (?P<what>[\w-]+) in \S+\.(?:[chS]|rs):\d+", "UBSAN: {what}"),
    # until v5.7
    row(
        "ubsan",
        r"UBSAN: Undefined behaviour in (?P<file>\S+\.[chS]):\d+",
        "UBSAN: Undefined behaviour in {file}:LINE",
        place=False,
    ),
    row("leak", r"kmemleak: \d+ new suspected memory leaks", "memory leak", place=False, proof=None),
    row("leak", r"BUG: memory leak$", "memory leak", proof=_LEAK),
    # what kmemleak prints with CONFIG_DEBUG_KMEMLEAK_VERBOSE, and what its file in debugfs says
    row(
        "leak",
        r"(?:kmemleak: )?" + _SIZE.pattern + r":?\s*$",
        "memory leak in {function} (size {size})",
        proof=_LEAK,
        joins=True,
    ),
)

PAGES = (
    row(
        "bad-page",
        r"BUG: Bad page map in process .{1,64}  \w+:",
        "BUG: Bad page map",
        titled=False,
        proof=re.compile(r"page:|addr:|" + TRACE.pattern),
    ),
    row(
        "bad-page",
        r"BUG: Bad page (?P<what>state|cache) in process .{1,64}  \w+:",
        "BUG: Bad page {what}",
        proof=re.compile(r"page:|addr:|" + TRACE.pattern),
    ),
    # page_poison=1: somebody wrote to a page after it was freed, or the memory is broken (mm/page_poison.c)
    row(
        "bad-page",
        r"pagealloc: (?P<what>memory corruption|single bit error)$",
        "page poison: {what}",
        proof=re.compile(r"[0-9a-f]{8,}: |" + TRACE.pattern),
    ),
    # p?d_ERROR() and swap_info_get(): a page table or a swap entry with nonsense in it
    row("bad-page", r"\S+\.[ch]:\d+: bad (?P<what>p[gum4]d|pte) ", "bad {what}", place=False, proof=None),
    row(
        "bad-page",
        r"\w+: (?P<what>(?:Bad|Unused) swap (?:file|offset) entry) [0-9a-f]+",
        "{what}",
        place=False,
        proof=None,
    ),
    row("bad-page", r"BUG: mempool element poison mismatch", "BUG: mempool element poison mismatch"),
    row(
        "bad-rss",
        r"BUG: Bad rss-counter state mm:\S+ (?:type:(?P<what>\w+)|idx:\d+) val:-?\d+",
        "BUG: Bad rss-counter state {what}",
        place=False,
        proof=None,
    ),
    row(
        "bad-rss",
        r"BUG: non-zero (?P<what>\w+) on freeing mm: -?\d+",
        "BUG: non-zero {what} on freeing mm: NUM",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"BUG \S+ \((?:Not tainted|Tainted)[^)]*\): (?P<what>[^\n.]{1,60})",
        "BUG: {what}",
        proof=_SLUB,
    ),
    row(
        "other",
        r"Page cache invalidation failure on direct I/O\.",
        "Page cache invalidation failure",
        place=False,
        proof=re.compile(r"File: "),
    ),
)

MEMORY: tuple[Format, ...] = (*SANITIZERS, *PAGES)
