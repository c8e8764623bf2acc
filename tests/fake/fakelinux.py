"""A small world that looks like a kernel tree to the rig: a real Makefile, real compiling, knobs for what goes wrong.

The knobs are lines of C in the tree, so a patch can turn them: `#error` breaks the build, an unused variable warns.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 99
EXTRAVERSION =
NAME = Fake

ifeq ($(O),)
$(error this tree builds out of tree only)
endif
SOURCES := $(sort $(wildcard mm/*.c))
OBJECTS := $(SOURCES:%.c=$(O)/%.o)

bzImage: $(O)/arch/x86/boot/bzImage
$(O)/%.o: %.c $(O)/.config
\t@echo "  CC      $*.o"
\t@mkdir -p $(dir $@)
\t@$(CC) -Wall -c -o $@ $<
$(O)/vmlinux: $(OBJECTS)
\t@echo "  LD      vmlinux"
\t@cat $(OBJECTS) $(O)/.config > $@
$(O)/arch/x86/boot/bzImage: $(O)/vmlinux machine.json
\t@mkdir -p $(dir $@) $(O)/include/config
\t@echo 6.12.99 > $(O)/include/config/kernel.release
\t@case $$(cat machine.json) in {*) cat machine.json;; *) sha256sum < $<; echo $$KBUILD_BUILD_USER;; esac > $@
"""

MERGE = """\
#!/bin/sh
# merge_config.sh -n -O DIR FRAGMENT...: symbols that Kconfig does not know are dropped, as the real one does.
[ "$1" = -n ] && [ "$2" = -O ] || exit 2
out=$3; shift 3
mkdir -p "$out"
cat "$@" | grep CONFIG_ | while read -r line; do
    name=$(echo "$line" | sed 's/.*CONFIG_\\([A-Za-z0-9_]*\\).*/\\1/')
    grep -q "^config $name$" Kconfig mm/Kconfig && echo "$line"
done > "$out/.config"
exit 0
"""

FILES = {
    "Makefile": MAKEFILE,
    "Kconfig": "config SMP\n\tbool\n\nconfig NET\n\tbool\n",
    "mm/Kconfig": 'if NET\nconfig DEBUG_VM\n\tbool "assertions"\n\tdepends on SMP\nendif\n',
    "mm/filemap.c": "int filemap(void)\n{\n\treturn 1;\n}\n\nint other(void)\n{\n\treturn 2;\n}\n",
    "machine.json": "boots",  # what fakeqemu.py is to do with this kernel
    "mm/memory.c": "int memory(void)\n{\n\treturn 3;\n}\n",
    "scripts/kconfig/merge_config.sh": MERGE,
    ".gitattributes": "*.c diff=cpp\n",  # git looks into it before it takes a tree
    ".gitignore": "/*\n",  # as Debian's
}


def make_tree(root: Path) -> Path:
    """Write the tree below `root` and return it."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "scripts/kconfig/merge_config.sh").chmod(0o755)
    (root / "mm/link").symlink_to("filemap.c")
    return root


def git(at: Path, *words: str) -> str:
    """Run git with a fixed identity and return its output."""
    argv = ["git", "-C", str(at), "-c", "user.name=Fake Developer", "-c", "user.email=fake@localhost", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def make_repository(root: Path) -> Path:
    """Write the tree below `root`, commit it, and return it."""
    make_tree(root)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message=base")
    return root


def make_series(repository: Path, target: Path, edits: Sequence[tuple[str, str, str, str]]) -> Path:
    """Turn (subject, file, old, new) edits into a folder of patches, leaving the repository as it was."""
    for subject, file, old, new in edits:
        path = repository / file
        text = path.read_text()
        assert old in text, f"{old!r} not in {file}"
        path.write_text(text.replace(old, new, 1))
        git(repository, "commit", "--quiet", "--all", f"--message={subject}\n\nWhy it is so.")
    git(repository, "format-patch", "--quiet", f"-{len(edits)}", "--cover-letter", "-o", str(target))
    git(repository, "reset", "--quiet", "--hard", f"HEAD~{len(edits)}")
    return target


GOOD = ("mm: return four", "mm/memory.c", "return 3", "return 4")
WARNS = ("mm: keep a spare", "mm/memory.c", "\treturn 3;", "\tint spare;\n\treturn 3;")
BREAKS = ("mm: a typo", "mm/filemap.c", "return 1", "retrun 1")
MENDS = ("mm: mend the typo", "mm/filemap.c", "retrun 1", "return 1")
