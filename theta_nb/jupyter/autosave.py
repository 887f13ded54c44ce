"""Keeps a merge session on disk while it is used, so that a crash, a closed tab or a dead kernel loses nothing."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.saved import read_session
from theta_nb.engine.merging.session import MergeSession
from theta_nb.errors import ThetaError
from theta_nb.jupyter.worker import Stop

__all__ = ["Autosave"]

Soon = Callable[[str, Callable[[Stop], None]], None]
"""Has work done in a thread; newer work of the same name replaces what waits or runs."""

_QUIET = 1.0  # seconds without a change before a file is written
_KEPT = 50
"""Files of other merges that stay; the oldest ones go."""


class Autosave:
    """Writes a session to a file of its own, named by what is merged, soon after it changed.

    Parameters
    ----------
    session
        What is kept.
    folder
        Where; nothing is written if it is empty.
    soon
        Has it done in a thread.
    """

    def __init__(self, session: MergeSession, folder: str, soon: Soon) -> None:
        self._session = session
        self._soon = soon
        self._path = os.path.join(folder, f"{_key(session)}.json") if folder else ""
        self._source = self._path
        self._dirty = False
        self.found = self._look()
        """What was saved of the same merge before and is not in this session; ``None`` if nothing."""
        self._unwatch = [session.watch(self._changed), session.tries.watch(self._changed)] if folder else []

    def _look(self) -> dict[str, Any] | None:
        if not self._path or len(self._session.tries):
            return None
        try:
            saved_at = os.stat(self._path).st_mtime
            saved = read_session(self._session, self._path)
        except (OSError, ThetaError):
            return None  # there is none, or it is of no use
        if not saved.tries and saved.settings in (self._session.settings, Settings()):
            return None
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved_at))
        return {"when": when, "tries": len(saved.tries), "short": saved.recipe.short()}

    def _changed(self) -> None:
        self._dirty = True
        self._soon("autosave", self._after_a_while)

    def _after_a_while(self, stop: Stop) -> None:
        until = time.monotonic() + _QUIET
        while time.monotonic() < until:
            time.sleep(0.05)
            stop()
        self.now()

    def now(self) -> None:
        """Write what has changed; a disk that is full stops nobody from working."""
        if not self._dirty or not self._path:
            return
        self._dirty = False
        with suppress(OSError, ThetaError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            if self.found is not None and self._source == self._path:  # nobody has said that it is not wanted
                self._source = self._path.replace(".json", ".before.json")
                os.replace(self._path, self._source)
            self._session.save(self._path)
            _tidy(os.path.dirname(self._path))

    def reopen(self) -> None:
        """Go on with what was saved.

        Raises
        ------
        MergeError
            If it cannot be read.
        """
        self._session.load(self._source)
        self.found = None

    def close(self) -> None:
        """Write once more and listen no longer."""
        self.now()
        for end in self._unwatch:
            end()


def _key(session: MergeSession) -> str:
    """A name for what is merged: equal inputs, equal name."""
    sources = [source for source in (session.base, *session.inputs) if source is not None]
    words = "\n".join(f"{source.label} {source.digest}" for source in sources)
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _tidy(folder: str) -> None:
    files = [entry for entry in os.scandir(folder) if entry.name.endswith(".json")]
    for entry in sorted(files, key=lambda entry: entry.stat().st_mtime)[:-_KEPT]:
        with suppress(FileNotFoundError):
            os.unlink(entry.path)
