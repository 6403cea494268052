"""What should be known before a comparison is believed, each with a code to ignore it by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sampleweights.compare.checks.base import Check
from sampleweights.compare.checks.labels import SuspiciousLabels
from sampleweights.compare.checks.multilabel import RareLabelNotFitted, SmallLabels
from sampleweights.compare.checks.samples import DuplicatesAcrossFolds, FewGroups, SmallClasses
from sampleweights.compare.checks.trainings import (
    BaselineNotAdjustable,
    EpochNeverTold,
    RareClassNotFitted,
)

__all__ = ["CHECKS", "CODES", "Check", "Found", "check_codes", "find"]

CHECKS: tuple[Check, ...] = (
    DuplicatesAcrossFolds(),
    RareClassNotFitted(),
    EpochNeverTold(),
    BaselineNotAdjustable(),
    SuspiciousLabels(),
    SmallClasses(),
    FewGroups(),
)
"""In the order in which they are told."""
LABEL_CHECKS: tuple[Check, ...] = (
    DuplicatesAcrossFolds(),
    RareLabelNotFitted(),
    EpochNeverTold(),
    SmallLabels(),
    FewGroups(),
)
"""Of multi-label targets; they have codes of the others."""
CHECKS_OF = {"class": CHECKS, "label": LABEL_CHECKS}
CODES = [check.code for check in CHECKS]


@dataclass(frozen=True)
class Found:
    """A check that has something to say."""

    code: str
    title: str
    text: str
    page: str

    def __str__(self) -> str:
        return f"{self.title}: {self.text} [{self.code}]"


def find(comparison: Any, ignore: Iterable[str] = ()) -> list[Found]:
    """What the checks say of a `Comparison`.

    Args:
        comparison: a Comparison.
        ignore: codes of checks that are left out.

    Raises:
        ValueError: a code that no check has.
    """
    ignored = check_codes(ignore)
    checks = [c for c in CHECKS_OF[comparison.task.one] if c.code not in ignored]
    said = {check: check.sentence(comparison) for check in checks}
    return [Found(c.code, c.title, text, c.page) for c, text in said.items() if text is not None]


def check_codes(ignore: Iterable[str]) -> list[str]:
    """The codes as a list; a string is one of them."""
    codes = [ignore] if isinstance(ignore, str) else list(ignore)
    for code in codes:
        if code not in CODES:
            raise ValueError(f"ignore must be codes of {', '.join(CODES)}, got {code!r}")
    return codes
