"""A real JupyterLab and a real Chromium, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.lab import CHROMIUM, KERNEL, Lab, Notebook, launched, open_page, running_lab, serving
from tests.browser.models import trained_repository

__all__ = ["KERNEL", "Lab", "Notebook", "serving"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser there is nothing to test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over a repository made for it."""
    with running_lab(tmp_path_factory.mktemp("lab"), trained_repository) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with launched() as found:
        yield found


@pytest.fixture
def open_notebook(lab: Lab, browser: Any) -> Iterator[Callable[..., Notebook]]:
    """Open a new notebook with some cells, and run them; each in a page and a kernel of its own."""
    contexts: list[Any] = []

    def make(*cells: str, width: int = 1280, height: int = 1000, **options: Any) -> Notebook:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        return open_page(lab, context, *cells)

    yield make
    for context in contexts:
        for page in context.pages:
            page.evaluate("async () => { await window.jupyterapp?.serviceManager.sessions.shutdownAll(); }")
        context.close()
