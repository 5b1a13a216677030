"""The command ``kritad``, and ``python -m kritad``.

Loading the rest takes half a second, in which Ctrl-C may come as well.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Runs kritad; returns its exit status."""
    try:
        from kritad.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # before a node began: that one stops in order


if __name__ == "__main__":
    sys.exit(main())
