"""A table of means over seeds: what every trial of this folder returns, prints and saves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "advice"


@dataclass
class Table:
    """The values of each row and column, one for each seed."""

    name: str
    """of the trial, as in ``python -m examples.advice NAME``"""
    corner: str
    """what the rows are"""
    values: dict[str, dict[str, list[float]]]
    """row -> column -> a value for each seed; a row may lack a column"""

    def __str__(self) -> str:
        columns = list(dict.fromkeys(column for row in self.values.values() for column in row))
        lines = [
            f"| {self.corner} | {' | '.join(columns)} |",
            "|---|" + "--:|" * len(columns),
        ]
        for name, row in self.values.items():
            cells = [shown(row[column]) if column in row else "" for column in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def save(self, folder: Path = FOLDER) -> None:
        """The values as JSON, and the table as Markdown, which the documentation includes."""
        folder.mkdir(parents=True, exist_ok=True)
        rounded = {
            name: {column: [round(value, 3) for value in row[column]] for column in row}
            for name, row in self.values.items()
        }
        saved = Table(self.name, self.corner, rounded)
        lines = json.dumps({"corner": self.corner, "values": rounded}, indent=1)
        (folder / f"{self.name}.json").write_text(lines + "\n", encoding="utf-8")
        (folder / f"{self.name}.md").write_text(f"{saved}\n", encoding="utf-8")

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> Table:
        saved = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return cls(name, saved["corner"], saved["values"])


def shown(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, with one decimal."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
