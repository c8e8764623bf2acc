"""Every fragment of kconfigs/ gets what it asks for from the real tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.kernels.build import flavours_of
from rig.kernels.kconfig import settings
from rig.pipeline import Pipeline

KCONFIGS = Path(__file__).parents[2] / "kconfigs"
FRAGMENTS = sorted(path.stem for path in KCONFIGS.glob("*.config") if path.stem != "base")

pytestmark = pytest.mark.boot


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_over_base_drops_nothing(real_pipeline: Pipeline, name: str) -> None:
    (flavour,) = flavours_of({f"test-{name}": ["base", name]}, KCONFIGS)
    final = settings(real_pipeline.builder.configuration(0, flavour))
    asked = settings((KCONFIGS / f"{name}.config").read_text())
    assert asked
    assert {symbol: final.get(symbol, "n") for symbol in asked} == asked
