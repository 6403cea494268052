"""What the example writes never takes the place of a file of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.isic2018 import __main__ as cli
from examples.isic2018.official import DataError
from examples.isic2018.outputs import WRITTEN, output, refuse_others

MINE = "mine\n"


def run_command(*arguments: object) -> None:
    cli.command(cli.parse_arguments(list(map(str, arguments))))


def write(path: Path, text: str) -> None:
    with output(path) as file:
        assert file != path  # which is there as a whole or not at all
        file.write_text(text)


def test_what_was_written_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report 1.md"
    for text in ("one", "two"):
        write(path, text)
        assert path.read_text() == text
        refuse_others(path, tmp_path / "absent")
    write(tmp_path / "new" / "other.md", "other")
    write(path, "three")
    assert sorted(p.name for p in path.parent.iterdir()) == ["other.md", "report 1.md", WRITTEN]


@pytest.mark.parametrize("ours", [False, True])
def test_a_file_of_the_users_stays(tmp_path: Path, ours: bool) -> None:
    path = tmp_path / "report.md"
    if ours:
        write(path, "a result")
    path.write_text(MINE)
    with pytest.raises(DataError, match="not what this example wrote last: move it away"):
        write(path, "another result")
    assert path.read_text() == MINE
    assert not list(tmp_path.glob("*.part*"))
    write(path, MINE)  # the same content replaces nothing


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write(path, "a result")

    def fails() -> None:
        with output(path) as file:
            file.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert path.read_text() == "a result"
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("command", cli.OUTPUTS)
def test_commands_refuse_at_once(root: Path, tmp_path: Path, command: str) -> None:
    for name in cli.OUTPUTS[command]:
        path = tmp_path / "isic2018" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(MINE)
        with pytest.raises(DataError, match=f"{name} is there and is not what this example wrote"):
            run_command(command, "--data-root", root, "--preset", "fast", "--output", tmp_path)
        assert path.read_text() == MINE
        path.unlink()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["splits/split-1.csv", "figures/recall-flat-adam.png"])
def test_smaller_files_stay_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "digits" / name
    path.parent.mkdir(parents=True)
    path.write_text(MINE)
    with pytest.raises(DataError, match=f"{path.name} is there"):
        run_command(
            "reproduce", "--epochs-flat", 1, "--weightings", "none", "--losses", "ce", "--models",
            "flat", "--optimizers", "adam", "--workers", 1, "--output", tmp_path,
        )  # fmt: skip
    assert path.read_text() == MINE
