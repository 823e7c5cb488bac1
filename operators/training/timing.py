"""Durations for people."""


def spell_duration(seconds: float) -> str:
    """A duration for people: "42 s", "8 min", "3.5 h", "4.2 days"."""
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            digits = 1 if unit == "h" else 0
            return f"{seconds / divisor:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} days"
