"""What git-lfs says when something went wrong, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from theta_nb.errors import ThetaError
from theta_nb.git.endpoints import mask_credentials

__all__ = ["LfsError", "hint_for", "last_words"]

_NOISE = ("warning: current Git remote contains credentials", "error: failed to fetch some objects from", "info: ")
_LOGIN = r"\b401\b|Authentication required|credentials|could not read Username"

# git-lfs has words of its own for most statuses; other servers' words come with the number.
_HINTS = (
    (_LOGIN, "Log in: 'git credential' must know a user and a password for it ('git lfs push' asks it as well)."),
    (
        r"\b507\b|\b413\b|\b509\b|quota|insufficient server storage|limit exceeded",
        "Make room there, or choose another server (git config lfs.url URL). What arrived is kept; then run it again.",
    ),
    (
        r"expected OID",
        "The copy there, or on the way from there, is damaged: run it again, and if it stays so have it "
        "deleted there and run 'git theta push --all' in a clone that is complete.",
    ),
    (
        r"\b404\b|\b405\b|repository or object not found|git-lfs-authenticate: command not found",
        "Does that server offer Git LFS? 'git theta env' shows the address; 'git config lfs.url URL' changes it.",
    ),
    (r"\b403\b|authoriz|forbidden|proper access", "Your account may not do that there; ask for access."),
)


class LfsError(ThetaError):
    """git-lfs did not do what it was asked to.

    Parameters
    ----------
    message, hint
        As for :class:`ThetaError`.
    said
        Its own last lines.
    begun
        Objects of which something was sent.
    """

    def __init__(self, message: str, *, said: tuple[str, ...] = (), begun: Iterable[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.said = said
        self.begun = frozenset(begun)

    @property
    def wants_login(self) -> bool:
        """Whether the server did not let us in."""
        return any(re.search(_LOGIN, line, re.I) for line in self.said)


def hint_for(said: Sequence[str], otherwise: str) -> str:
    """What to do about git-lfs's last words.

    Examples
    --------
    >>> hint_for(["batch response: Authorization error"], "Run it again.")
    'Your account may not do that there; ask for access.'
    """
    text = "\n".join(said)
    return next((hint for pattern, hint in _HINTS if re.search(pattern, text, re.I)), otherwise)


def last_words(text: str) -> tuple[str, ...]:
    r"""The lines of git-lfs's error output that say something, each once and without credentials.

    Examples
    --------
    >>> last_words("info: waiting\nPost https://ada:pw@example.org: EOF\n")
    ('Post https://***@example.org: EOF',)
    """
    lines = (mask_credentials(line.strip()) for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
