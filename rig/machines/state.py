"""What machine a guest says it is: one command that asks, and what its output means. Pure."""

from __future__ import annotations

from rig.model import GuestState

_THP = "/sys/kernel/mm/transparent_hugepage"
COMMAND = f"""
echo release $(uname -r)
echo cpus $(nproc)
echo nodes $(ls -d /sys/devices/system/node/node[0-9]* 2>/dev/null | wc -l)
echo thp $(cat {_THP}/enabled 2>/dev/null)
echo shmem_thp $(cat {_THP}/shmem_enabled 2>/dev/null)
echo taint $(cat /proc/sys/kernel/tainted)
cat /proc/meminfo
"""


def parse_state(text: str) -> GuestState:
    """Parse the output of the state command. A policy the kernel does not have is the empty string."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        values[name.removesuffix(":")] = value.strip()

    def number(name: str) -> int:
        first = values.get(name, "0").split()
        return int(first[0]) if first and first[0].isdigit() else 0

    def chosen(name: str) -> str:
        """The word in brackets: `always [madvise] never`."""
        return next((word[1:-1] for word in values.get(name, "").split() if word.startswith("[")), "")

    return GuestState(
        release=values.get("release", ""),
        cpus=number("cpus"),
        nodes=number("nodes"),
        memory_kib=number("MemTotal"),
        thp=chosen("thp"),
        shmem_thp=chosen("shmem_thp"),
        hugepages=number("HugePages_Total"),
        hugepage_kib=number("Hugepagesize"),
        taint=number("taint"),
    )
