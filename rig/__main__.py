"""`rig` and `python -m rig`."""

from __future__ import annotations

import sys

from rig.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
