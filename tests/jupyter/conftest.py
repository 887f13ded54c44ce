"""A real IPython shell, in a real repository."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from tests.conftest import GitSandbox
from tests.history.conftest import grown, new_grown

__all__ = ["grown", "new_grown"]


class Shell:
    """Runs cells as a notebook does, and says what came of them."""

    def __init__(self, ip: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
        self.ip = ip
        self._capsys = capsys
        self.printed = ""

    def __call__(self, cell: str) -> Any:
        """The value of a cell that succeeds."""
        result = self.ip.run_cell(cell)
        captured = self._capsys.readouterr()
        self.printed = captured.out + captured.err
        assert result.success, self.printed
        return result.result

    def fails(self, cell: str) -> tuple[BaseException, str]:
        """The error of a cell, and what is shown of it."""
        result = self.ip.run_cell(cell)
        captured = self._capsys.readouterr()
        error = result.error_in_exec or result.error_before_exec
        assert error is not None, captured.out
        return error, captured.out + captured.err

    def completions(self, text: str) -> list[str]:
        """What is offered at the end of a text: how its last word would read then."""
        with provisionalcompleter():  # what a kernel asks for the front end
            found = list(self.ip.Completer.completions(text, len(text)))
        begin = len(text) - len(re.search(r"\S*$", text)[0])  # type: ignore[index]
        return [f"{text[begin : one.start]}{one.text}" for one in found if one.start >= begin]

    def shown(self, value: Any) -> dict[str, Any]:
        """What a notebook shows of a value, by MIME type."""
        bundle: dict[str, Any] = self.ip.display_formatter.format(value)[0]  # type: ignore[union-attr]
        return bundle


@pytest.fixture
def new_shell(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Path], Shell]]:
    """Make a shell whose current directory is a given one, with the extension loaded."""
    monkeypatch.setenv("IPYTHONDIR", str(isolated_home / "ipython"))
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"

    def make(folder: Path, *, load: bool = True) -> Shell:
        monkeypatch.chdir(folder)
        InteractiveShell.clear_instance()
        ip = InteractiveShell.instance(config=config)
        ip.display_formatter.active_types = ip.display_formatter.format_types  # type: ignore[union-attr]
        shell = Shell(ip, capsys)
        if load:
            shell("%load_ext theta_nb")
        return shell

    yield make
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(new_shell: Callable[..., Shell], grown: GitSandbox) -> Shell:
    """One in a repository with a history."""
    return new_shell(grown.path)
