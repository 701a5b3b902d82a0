"""Checks of settings that people write: each error names the setting, its value and what it must be."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ValueError unless `value` is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")


def check_switch(name: str, value: object) -> None:
    """Raises ValueError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: it must be true or false")


def check_whole(name: str, value: object, least: int, most: int | None = None, unit: str = "") -> None:
    """Raises ValueError unless `value` is a whole number from `least` to `most`. unit: for people, such as "pixels"."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {value!r}: it must be a whole number, {allowed}{f' {unit}' if unit else ''}")


def check_number(name: str, value: object, least: float, most: float = math.inf, *, is_open: bool = False) -> None:
    """Raises ValueError unless `value` is a finite number from `least` to `most`; is_open: the ends are left out."""
    is_allowed = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
        and not (is_open and value in (least, most))
    )
    if not is_allowed:
        low = f"above {least:g}" if is_open else f"{least:g} or more"
        between = f"between {least:g} and {most:g}" if is_open else f"{least:g} to {most:g}"
        raise ValueError(f"{name} is {value!r}: it must be a number, {low if math.isinf(most) else between}")
