"""What goes wrong in another process, told in one sentence and with the user's own lines."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["Failure", "attempt", "succeeded"]

KINDS = (ValueError, TypeError, RuntimeError)
"""Of errors that are raised again as what they were."""


class InWorker(Exception):
    """The cause of an error that another process raised: its traceback."""

    def __str__(self) -> str:
        return f"in another process\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An error of a run, as it can be sent: joblib would wrap it in forty lines of its own."""

    kind: type[Exception]
    message: str
    trace: str
    """The traceback from the first line that is not ours."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        kind = next((kind for kind in KINDS if isinstance(error, kind)), RuntimeError)
        message = str(error) if kind in KINDS and str(error) else repr(error)
        cause: BaseException = error if error.__cause__ is None else error.__cause__
        frames = cause.__traceback__
        while frames is not None and frames.tb_next is not None and is_ours(frames):
            frames = frames.tb_next
        lines = traceback.format_exception(type(cause), cause, frames)
        return cls(kind, message, "".join(lines))

    def throw(self) -> NoReturn:
        """Raise it here."""
        raise self.kind(self.message) from InWorker(self.trace)


def is_ours(frames: Any) -> bool:
    """Whether a line is one of the files here, which call the code of a user."""
    return str(frames.tb_frame.f_globals.get("__name__", "")).startswith(
        "sampleweights.compare.training."
    )


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns; or the `Failure` that stands for what it raises."""
    try:
        return function(*args)
    except Exception as error:
        return Failure.of(error)


def succeeded(results: Iterable[Any]) -> Iterator[Any]:
    """The results, up to the first `Failure`, which is raised."""
    for result in results:
        if isinstance(result, Failure):
            result.throw()
        yield result
