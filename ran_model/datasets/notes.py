"""What a reader leaves out, counted by reason, with the first examples."""

from __future__ import annotations

EXAMPLES = 3


class Notes:
    """Collects what was left out; `lines()` has one line per reason, in the order in which the reasons came up."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str) -> None:
        """One more thing left out for `reason`, a plural such as "rows without a label"."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def lines(self) -> list[str]:
        """Such as "rows without a label: 12 (row 3, row 17, row 40, ...)"."""
        return [
            f"{reason}: {count} ({', '.join(self._examples[reason])}{', ...' if count > EXAMPLES else ''})"
            for reason, count in self._counts.items()
        ]
