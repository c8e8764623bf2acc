"""The series and controls of patches/: what the rig is tried on, and what verdicts are recorded of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.errors import ConfigError
from rig.records import controls
from rig.records.controls import Control
from rig.trees import series

PATCHES, CONTROLS = "patches", "controls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A series or a control of patches/, as its files are now."""

    name: str  # below patches/: fault-around-private, controls/some-control
    origins: tuple[str, ...]  # to give as series=, relative to the project's root
    key: str  # of the bytes, see trees/series.py
    patches: int
    control: Control | None = None
    prefix_keys: tuple[str, ...] = ()  # of a series: of its first patch, its first two, … and all of them
    files: tuple[str, ...] = ()  # of a series: its patches, as `origins`


def subjects(root: Path) -> tuple[Subject, ...]:
    """Return the series of patches/ and then its controls, each sorted by name.

    Raises ConfigError or SeriesError for one that cannot be read, and ConfigError when two hold the same patches.
    """
    folder = root / PATCHES
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and controls.has_patches(path))
    found = [_subject(root, name, (f"{PATCHES}/{name}",), None) for name in names]
    for control in controls.read(folder / CONTROLS):
        found.append(_subject(root, f"{CONTROLS}/{control.name}", control.series, control))
    by_key: dict[str, Subject] = {}
    for one in found:
        if (other := by_key.setdefault(one.key, one)) is not one:
            raise ConfigError(f"{PATCHES}/{one.name} and {PATCHES}/{other.name} are the same patches")
    return tuple(found)


def _subject(root: Path, name: str, origins: tuple[str, ...], control: Control | None) -> Subject:
    read = series.read(*(str(root / origin) for origin in origins))
    alone = control is None
    return Subject(
        name=name,
        origins=origins,
        key=read.key,
        patches=len(read.patches),
        control=control,
        prefix_keys=read.prefix_keys if alone else (),
        files=tuple(f"{origins[0]}/{patch.name}" for patch in read.patches) if alone else (),
    )


def prefix_of(key: str, known: Sequence[Subject]) -> tuple[Subject, int] | None:
    """Return the first series that begins with the patches of this key, and how many these are."""
    return next(((one, 1 + one.prefix_keys.index(key)) for one in known if key in one.prefix_keys), None)
