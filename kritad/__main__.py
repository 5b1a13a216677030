"""``python -m kritad`` is the command kritad."""

import sys

from kritad.cli import main

if __name__ == "__main__":
    sys.exit(main())
