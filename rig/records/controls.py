"""The controls of patches/controls/: small series of which it is known beforehand whether they are right.

A bad one has one mistake, of the kind that a reviewer may miss; a rig that does not see it has a hole, and its
`control.yaml` says which finding to expect. A good one looks as suspicious and is right; a rig that accuses it is
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import Field, PrivateAttr, model_validator

from rig.errors import ConfigError
from rig.settings.config import Config, Model, Name, Words
from rig.settings.reading import read_model

FILE = "control.yaml"
HELP = "patches/controls/README.md describes the keys of a control"

Race = Literal[
    "truncate",
    "hole-punch",
    "invalidate",
    "cow",
    "reclaim",
    "migration",
    "collapse",
    "split",
    "hugetlb",
    "mremap",
    "memory-failure",
    "exit",
    "none",
]
Text = Annotated[str, Field(min_length=1)]

#: What each kind says of itself, and the other must not.
_SAID = {"bad": ("wrong", "race", "oracle", "signature"), "good": ("changes",)}


class Control(Model):
    """One control; `read` gives it its place."""

    kind: Literal["bad", "good"]
    wrong: Text | None = Field(None, description="what is wrong with it; the first sentence is for the table")
    changes: Text | None = Field(None, description="what it changes, and why that is right")
    race: Race | None = Field(None, description="what the mistake loses against; none: it needs no race")
    oracle: Text | None = Field(None, description="who should see it")
    signature: Words = Field((), description="globs over the titles of the findings that catch it")
    on: Name | None = Field(None, description="the series of patches/ that it is stacked on")
    kconfig: Words = Field((), description="fragments of kconfigs/ that every flavour needs beside its own")
    _path: PurePosixPath = PrivateAttr(PurePosixPath())

    @model_validator(mode="after")
    def _of_its_kind(self) -> Control:
        (other,) = _SAID.keys() - {self.kind}
        missing = [key for key in _SAID[self.kind] if not getattr(self, key)]
        strange = [key for key in _SAID[other] if getattr(self, key)]
        if missing:
            raise ValueError(f"a {self.kind} control says {', '.join(_SAID[self.kind])}; missing: {', '.join(missing)}")
        if strange:
            raise ValueError(f"{', '.join(strange)}: only for a control that is {other}")
        if not all(self.signature):
            raise ValueError("signature: an empty glob matches nothing")
        return self

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self._path.name

    @property
    def series(self) -> tuple[str, ...]:
        """The origins to give as `series=`, relative to the project's root."""
        below = (str(self._path.parent.parent / self.on),) if self.on else ()
        return (*below, str(self._path))

    @property
    def description(self) -> str:
        """What is wrong with it, or what it changes."""
        return self.wrong or self.changes or ""

    def at(self, path: str) -> Control:
        """Return the control with its folder, relative to the project's root."""
        placed = self.model_copy()
        placed._path = PurePosixPath(path)
        return placed

    def sees(self, title: str) -> bool:
        """Whether a finding of this title is the one that is to catch it."""
        return any(fnmatchcase(title, glob) for glob in self.signature)

    def overrides(self, config: Config) -> tuple[str, ...]:
        """Return what to put on the command line so that the flavours of `config` have what this control needs."""
        if not self.kconfig:
            return ()
        wanted = {name: list(dict.fromkeys((*words, *self.kconfig))) for name, words in config.flavours.items()}
        return (f"flavours={flow(wanted)}",)


def read(folder: Path) -> tuple[Control, ...]:
    """Return the controls below `folder` (patches/controls), sorted by name; none if there is no such folder.

    Raises ConfigError, which names the control, for a `control.yaml` that is not there or not right, a series that it
    is stacked on and that is not beside `folder`, and a folder without patches.
    """
    homes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return tuple(_read(home) for home in homes)


def _read(home: Path) -> Control:
    place = PurePosixPath(home.parent.parent.name, home.parent.name, home.name)
    control = read_model(home / FILE, Control, name=str(place / FILE), hint=HELP)
    if not has_patches(home):
        raise ConfigError(f"{place}: holds no *.patch", hint=HELP)
    if control.on and not has_patches(home.parent.parent / control.on):
        raise ConfigError(f"{place / FILE}: on: {control.on!r} is not a series of {place.parent.parent}/", hint=HELP)
    return control.at(str(place))


def has_patches(folder: Path) -> bool:
    """Whether the folder holds a patch beside its cover letter."""
    return any(not path.name.startswith("0000-") for path in folder.glob("*.patch"))


def flow(value: object) -> str:
    """Return plain data as YAML on one line, as the command line takes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=2**20, sort_keys=False, allow_unicode=True).strip()


def series_word(origins: Sequence[str]) -> str:
    """Return `series=…` for the command line."""
    return f"series={origins[0] if len(origins) == 1 else flow(list(origins))}"
