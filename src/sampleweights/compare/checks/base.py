"""What a check is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

__all__ = ["Check", "listed"]


class Check(ABC):
    """Something that should be known before a comparison is believed."""

    code: ClassVar[str]
    """Words with hyphens, by which the check is ignored."""
    title: ClassVar[str]
    page: ClassVar[str] = "comparing.html#checks"
    """Where the documentation explains it."""

    @abstractmethod
    def sentence(self, comparison: Any) -> str | None:
        """What a `Comparison` shows and what to do about it; None where there is nothing to say."""


def listed(names: list[str]) -> str:
    """At most five of the names, and how many more there are."""
    more = len(names) - 5
    names = [*names[:5], f"{more} more"] if more > 0 else names
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
