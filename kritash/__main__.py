"""``python -m kritash``."""

from __future__ import annotations

import sys

from kritash.cli import main

if __name__ == "__main__":
    sys.exit(main())
