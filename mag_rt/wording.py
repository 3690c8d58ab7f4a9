"""Names and times as people can read them, the same on the terminal and in the report."""

import unicodedata

_NOT_SHOWN = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode: control, surrogate, private, unassigned, line and paragraph separators."""
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Text as it can be shown: what would break or reorder a line, and what has no shape, becomes an escape.

    Spaces of other widths, joiners and the like stay: names of ordinary files have them.
    """
    return "".join(c.encode("unicode_escape").decode() if _is_escaped(c) else c for c in text)


def _is_escaped(character: str) -> bool:
    return character in _BIDI_CONTROLS or unicodedata.category(character) in _NOT_SHOWN


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
