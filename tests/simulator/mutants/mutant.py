"""What a planted bug is. The bugs themselves are in the other files of this folder.

Rules:
* A mutant is what somebody might have written: one line left out, one condition the
  wrong way round. Assertions in its neighbourhood stay, unless whoever makes that
  mistake would not have written them either.
* A mutant replaces attributes of the product's modules and classes while it is planted
  (registry.py), and edits no file. Replacements hold no state between two plantings.
* A name that was imported by ``from x import y`` is replaced where it is used.
"""

from __future__ import annotations

import attrs

# Whose attribute, its name, and what stands there instead.
Patch = tuple[object, str, object]


@attrs.frozen
class Mutant:
    """One planted bug."""

    name: str  # what is wrong, as words joined by hyphens
    rule: str  # what it breaks, in one line
    source: str  # where that rule, or the bug, is described
    hint: str  # who should notice, and under which faults
    patches: tuple[Patch, ...]
