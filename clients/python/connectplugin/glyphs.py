"""Which characters of a text from somebody else are shown to people, on a terminal or in a log: those that one sees."""

_MOST_SHOWN = 2048

# What counts as a letter or a mark, and is not seen: fillers, what joins or varies others, and braille without a dot.
_UNSEEN = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0,
                              *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def printable(text: str) -> str:
    """A text as people may see it: bounded, on one line, with a replacement character for each that nobody sees."""
    if len(text) > _MOST_SHOWN:
        text = text[:_MOST_SHOWN] + "…"
    return "".join(c if c.isprintable() and c not in _UNSEEN else " " if c == "\t" else "\ufffd" for c in text)
