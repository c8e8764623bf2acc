"""The rate of the host's time stamp counter, so that an emulated guest need not measure it.

Under TCG a guest reads the host's own counter and measures its rate against an emulated timer, which comes late on a
loaded host: guests were seen to take 2.6 GHz for 0.5 GHz, and their seconds then passed five times too fast. With
`tsc_early_khz=` (arch/x86/kernel/tsc.c, v6.12) the kernel takes the rate as it is given.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rig import proc
from rig.store import digest, write_atomically

SOURCE = Path(__file__).with_name("hosttools") / "tsc.c"
#: What a time stamp counter may be, in kHz; anything else was not measured well.
PLAUSIBLE = range(100_000, 10_000_000)


def cmdline(cache: Path) -> tuple[str, ...]:
    """Return the kernel parameter for an emulated guest; none where the rate cannot be found out.

    It is measured once per boot of the host and kept in the directory `cache`.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    file = cache / f"tsc-{digest('tsc-1', boot, SOURCE.read_text())[:16]}"
    khz = _kept(file)
    if khz is None:
        khz = measure()
        if khz is None:
            return ()
        write_atomically(file, f"{khz}\n")
    return (f"tsc_early_khz={khz}",)


def measure() -> int | None:
    """Return the rate in kHz, after a quarter of a second; None where gcc or the counter is missing, or it is odd."""
    with tempfile.TemporaryDirectory(prefix="rig-tsc-") as folder:
        program = Path(folder) / "tsc"
        made = proc.run(["gcc", "-O2", "-o", program, SOURCE], timeout=60)
        done = proc.run([program], timeout=60) if made.ok else made
    return _rate(done.stdout) if done.ok else None


def _kept(file: Path) -> int | None:
    try:
        return _rate(file.read_text())
    except (OSError, UnicodeDecodeError):
        return None


def _rate(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() and int(text) in PLAUSIBLE else None
