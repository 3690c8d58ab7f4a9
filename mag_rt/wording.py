"""Names and times as people can read them, the same on the terminal and in the report."""


def printable(text: str) -> str:
    """Text as it can be shown: control characters, bidi overrides and undecodable bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
