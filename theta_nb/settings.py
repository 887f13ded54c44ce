"""Settings, read once at the edges from git's configuration and the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from theta_nb.errors import ThetaError

__all__ = ["Settings", "Tolerance"]

_SUFFIXES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0", ""})


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from the stored one to be taken for it: |new - old| <= atol + rtol * |old|.

    Parameters
    ----------
    atol, rtol
        Absolute and relative part, not negative.
    """

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user can set.

    Parameters
    ----------
    smudge_limit
        Checkpoints of more bytes stay manifests when git itself checks them out, because git holds the whole file in
        memory (``theta.smudgeLimit``; a quarter of the RAM).
    skip_smudge
        Always leave manifests (``theta.skipSmudge``, ``GIT_THETA_SKIP_SMUDGE``).
    fsync
        Whether objects reach the disk before they get their names (``theta.fsync``); what git-lfs fetched is brought
        there later, and fetched again if it was cut short.
    fetch
        Whether missing objects are fetched when they are needed: ``"auto"``, ``"ask"`` or ``"never"``
        (``theta.fetch``).
    renew
        Whether a version whose objects are not here is stored anew from the file (``GIT_THETA_RENEW``).
    update
        Update type of changed tensors, or ``"auto"`` for the cheapest (``theta.update``; the attribute
        ``theta-update`` comes first).
    tolerance
        Differences from the committed version that do not count (``theta.tolerance``); ``None``: every one counts.
    workers
        Threads that encode and decode (``theta.workers``; the number of cores, at most 8).
    hooks
        Whether the hooks are installed on first use (``theta.hooks``).
    merge_method
        Merge method for what both sides changed, ``METHOD:NAME=VALUE`` (``theta.merge.method``; the attribute
        ``theta-merge`` comes first); empty: somebody is asked.
    merge_now
        The same for one command, before both (``GIT_THETA_MERGE``).
    merge_review
        Whether every changed parameter waits for a choice (``theta.merge.review`` is ``always``).
    merge_decided
        Paths whose merge is decided elsewhere, so that the merge driver leaves them alone
        (``GIT_THETA_MERGE_DECIDED``, by lines; set by ``git theta merge`` for the git that it runs).
    merging
        Whether a ``git merge`` runs this program, and no other command that calls merge drivers (git then names the
        heads in ``GITHEAD_…``).
    manual_merge
        Whether a conflict also writes the three versions beside the file (``GIT_THETA_MANUAL_MERGE``).
    """

    smudge_limit: int
    skip_smudge: bool = False
    fsync: bool = True
    fetch: str = "auto"
    renew: bool = False
    update: str = "auto"
    tolerance: Tolerance | None = None
    workers: int = 2
    hooks: bool = True
    merge_method: str = ""
    merge_now: str = ""
    merge_review: bool = False
    merge_decided: tuple[str, ...] = ()
    merging: bool = False
    manual_merge: bool = False

    @classmethod
    def parse(cls, config: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
        """Settings from git configuration values (lower-case keys) and environment variables.

        Raises
        ------
        ThetaError
            If a value is not of its kind; the message names the key.

        Examples
        --------
        >>> Settings.parse({"theta.smudgelimit": "2g"}, {"GIT_THETA_SKIP_SMUDGE": "0"}).smudge_limit
        2147483648
        """
        skip = environ.get("GIT_THETA_SKIP_SMUDGE")
        return cls(
            smudge_limit=_size(config, "theta.smudgelimit", _ram() // 4),
            skip_smudge=_boolean(config, "theta.skipsmudge", default=False)
            if skip is None
            else _as_boolean("GIT_THETA_SKIP_SMUDGE", skip),
            fsync=_boolean(config, "theta.fsync", default=True),
            fetch=_word(config, "theta.fetch", ("auto", "ask", "never")),
            renew=_as_boolean("GIT_THETA_RENEW", environ.get("GIT_THETA_RENEW", "")),
            update=config.get("theta.update", "auto").strip().lower(),
            tolerance=_tolerance(config.get("theta.tolerance", "")),
            workers=max(1, min(64, _size(config, "theta.workers", min(8, os.cpu_count() or 1)))),
            hooks=_boolean(config, "theta.hooks", default=True),
            merge_method=config.get("theta.merge.method", "").strip(),
            merge_now=environ.get("GIT_THETA_MERGE", "").strip(),
            merge_review=_word(config, "theta.merge.review", ("never", "always")) == "always",
            merge_decided=tuple(filter(None, environ.get("GIT_THETA_MERGE_DECIDED", "").split("\n"))),
            merging=any(name.startswith("GITHEAD_") for name in environ),
            manual_merge=_as_boolean("GIT_THETA_MANUAL_MERGE", environ.get("GIT_THETA_MANUAL_MERGE", "")),
        )


def _tolerance(text: str) -> Tolerance | None:
    found: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        key, _, value = word.partition("=")
        try:
            found[key.strip().lower()] = float(value)
        except ValueError:
            found[key] = math.nan
    if not found:
        return None
    if not found.keys() <= {"atol", "rtol"} or not all(0 <= value < math.inf for value in found.values()):
        raise ThetaError(f"theta.tolerance = {text!r} is not known", hint="Write, say, 'rtol=1e-6 atol=1e-9'.")
    return Tolerance(**found) if any(found.values()) else None


def _ram() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _size(config: Mapping[str, str], key: str, default: int) -> int:
    text = config.get(key)
    if text is None:
        return default
    digits = text.strip().lower()
    suffix = digits[-1:] if digits[-1:] in _SUFFIXES and digits else ""
    number = digits.removesuffix(suffix) if suffix else digits
    if not number.isdecimal() or not number.isascii():
        raise ThetaError(f"{key} = {text!r} is not a size", hint="Write a number with k, m or g behind it.")
    return int(number) * _SUFFIXES[suffix]


def _word(config: Mapping[str, str], key: str, words: tuple[str, ...]) -> str:
    text = config.get(key, words[0]).strip().lower()
    if text not in words:
        raise ThetaError(f"{key} = {text!r} is not known", hint=f"Use one of {', '.join(words)}.")
    return text


def _boolean(config: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = config.get(key)
    return default if text is None else _as_boolean(key, text)


def _as_boolean(key: str, text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ThetaError(f"{key} = {text!r} is neither true nor false")
    return word in _TRUE
