"""The command ``kritash``, and ``python -m kritash``.

Loading the rest takes a tenth of a second, in which Ctrl-C may come as well.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Runs kritash; returns its exit code."""
    try:
        from kritash.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # Exit.INTERRUPTED, which may not be there yet


if __name__ == "__main__":
    sys.exit(main())
