"""What this host lacks, and the one command that mends it.

Only the standard library is imported here: `ci/setup` runs this module before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOW_DISK_GIB = 12  # a checkout, two object directories and kernels take about 6 GiB


@dataclass(frozen=True, slots=True)
class Need:
    """Something the host must have: a program on PATH, a file or a Python module, and the Debian package with it."""

    what: str
    package: str
    why: str

    @property
    def there(self) -> bool:
        """Whether the host has it."""
        if self.what.startswith("import "):
            return importlib.util.find_spec(self.what.removeprefix("import ")) is not None
        if self.what.startswith("/"):
            return any(Path("/").glob(self.what.lstrip("/")))
        return shutil.which(self.what, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is not None


NEEDS = (
    Need("git", "git", "base trees and series"),
    Need("gcc", "gcc", "kernels and workloads"),
    Need("make", "make", "kernels"),
    Need("objdump", "binutils", "the instructions of the functions that a series touches"),
    Need("flex", "flex", "Kconfig"),
    Need("bison", "bison", "Kconfig"),
    Need("bc", "bc", "the kernel's time constants"),
    Need("perl", "perl", "checkpatch and parts of the kernel build"),
    Need("xz", "xz-utils", "source tarballs"),
    Need("/usr/include/gelf.h", "libelf-dev", "objtool"),
    Need("/usr/include/openssl/opensslv.h", "libssl-dev", "the kernel build"),
    Need("/usr/include/*/sys/cdefs.h", "libc6-dev", "kernels and static workloads"),
    Need("qemu-system-x86_64", "qemu-system-x86", "machines"),
    Need("busybox", "busybox-static", "the guest image"),
    Need("dropbear", "dropbear-bin", "the guest's SSH server"),
    Need("ssh", "openssh-client", "`rig shell`"),
    Need("mke2fs", "e2fsprogs", "ext4 disks"),
    Need("mkfs.xfs", "xfsprogs", "xfs disks"),
    Need("/usr/src/linux-source-6.12.tar.xz", "linux-source-6.12", "the default base tree"),
    Need("import ensurepip", "python3-venv", "the Python environment"),
)
#: For the test suite alone.
TEST_NEEDS = (
    Need("shellcheck", "shellcheck", "checks of the shell scripts"),
    Need("cpio", "cpio", "reading the guest image back"),
    Need("chromium", "chromium", "the page of a run, seen in a real browser"),
    Need("spin", "spin", "the model of fault-around against page removal"),
)


def missing(needs: tuple[Need, ...] = NEEDS) -> tuple[Need, ...]:
    """Return the needs that this host does not meet."""
    return tuple(need for need in needs if not need.there)


def apt_command(needs: tuple[Need, ...]) -> str:
    """Return the one command that installs what is missing."""
    return "apt-get install --no-install-recommends " + " ".join(sorted({need.package for need in needs}))


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    ok: bool
    fatal: bool
    text: str


def checks(store: Path) -> Iterator[Check]:
    """Yield what a run depends on, in the order in which it is needed."""
    lacking = missing()
    for need in NEEDS:
        yield Check(
            need not in lacking,
            True,
            f"{need.what}: for {need.why}" + (f"; package {need.package}" if need in lacking else ""),
        )
    if lacking:
        yield Check(False, True, f"install what is missing: {apt_command(lacking)}")
    yield _kvm()
    yield _jitter()
    yield _disk(store)
    memory = _memory_gib()
    yield Check(memory >= 4, False, f"memory: {memory:.0f} GiB" + ("" if memory >= 4 else "; kernel builds want 4 GiB"))
    yield Check(
        True,
        False,
        f"CPUs: {os.cpu_count()}" + ("; more vCPUs than cores is fine under TCG" if (os.cpu_count() or 1) < 4 else ""),
    )
    ccache = shutil.which("ccache") is not None
    yield Check(
        True,
        False,
        "ccache: " + ("used for kernel builds" if ccache else "not installed; it makes builds of other stores quicker"),
    )
    b4 = importlib.util.find_spec("b4") is not None or shutil.which("b4") is not None
    yield Check(
        True, False, "b4: " + ("fetches series=lore:…" if b4 else "not installed; pip install b4 for series=lore:…")
    )


def _kvm() -> Check:
    node = Path("/dev/kvm")
    if not node.exists():
        return Check(
            False, False, "/dev/kvm: not there; machines run under TCG, which is slower and weaker evidence on timing"
        )
    if not os.access(node, os.R_OK | os.W_OK):
        return Check(
            False,
            False,
            "/dev/kvm: no access; add yourself to its group (usermod -aG kvm $USER), or machines run under TCG",
        )
    return Check(True, False, "/dev/kvm: can be opened; whether it can run a kernel is found out by booting one")


def _jitter() -> Check:
    from rig.perturbation import perturb

    able = perturb.means()
    return Check(not able.note, False, f"vCPU jitter: {able.note or 'this user may do all of it'}")


def _disk(store: Path) -> Check:
    there = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    return Check(
        free >= LOW_DISK_GIB,
        False,
        f"{store}: {free:.0f} GiB free" + ("" if free >= LOW_DISK_GIB else f"; a run wants {LOW_DISK_GIB}"),
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def main() -> int:
    """Print the packages that are missing, one per line (with `--tests` those of the test suite too)."""
    needs = NEEDS + (TEST_NEEDS if "--tests" in sys.argv else ())
    for package in sorted({need.package for need in missing(needs)}):
        print(package)
    return 0


if __name__ == "__main__":
    sys.exit(main())
