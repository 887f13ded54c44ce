"""The repository from which the real git-lfs moves our objects.

git-lfs keeps objects in one folder and reads its settings from the repository it runs in. The *carrier* is a bare
repository of its own (``theta/carrier``) whose storage is our store, so that the user's repository and its
``.git/lfs`` stay as they are. Its configuration file never changes. What the user configured for the repository comes
with every call, in the environment: no secret is written down, and two commands with different settings do not meet.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from theta_nb.errors import ThetaError
from theta_nb.git.endpoints import ConfigLine, Endpoint
from theta_nb.git.places import Places
from theta_nb.git.process import child_environment, config_items, git_elsewhere, git_ok, without_local_variables

__all__ = ["INSIDE", "REMOTE", "Carrier", "carrier_for", "has_git_lfs"]

REMOTE = "theta-carrier"
"""What the remote is called in the carrier: no configuration of the user's is about this name."""

INSIDE = ("-c", "safe.bareRepository=all", "-c", "safe.directory=*")
"""Options of git for commands in a repository that we made ourselves: whose it is, is known."""

# git-lfs keeps 'tmp', 'incomplete' and 'logs' beside 'objects' and deletes old files there, which must not be ours.
_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tbare = true
[gc]
\tauto = 0
[lfs]
\tstorage = storage
\trepositoryformatversion = 0
"""
_OBJECTS_LINK = os.path.join("..", "..", "objects")

_RELEVANT = re.compile(
    r"(?:lfs|credential|http|https|url|ssh|protocol|gitcredential|gcm)\.|core\.(?:sshcommand|askpass|gitproxy)$",
    re.DOTALL,
)
_OURS_ALONE = frozenset({"lfs.storage", "lfs.repositoryformatversion"})

_OVERRIDES = {
    # A filter of the user's by path would leave objects behind and call it success.
    "lfs.fetchinclude": "",
    "lfs.fetchexclude": "",
    "lfs.fetchrecentalways": "false",
    "lfs.skipdownloaderrors": "false",
    "lfs.allowincompletepush": "false",
}


@dataclass(frozen=True)
class Carrier:
    """A bare repository whose LFS storage is our store.

    Parameters
    ----------
    places
        The user's repository.
    folder
        The bare repository.
    lines
        What is configured for the user's repository.
    """

    places: Places
    folder: str
    lines: Sequence[ConfigLine]

    @cached_property
    def lfs_version(self) -> tuple[int, int]:
        """Version of git-lfs; ``(0, 0)`` if it does not say."""
        result = subprocess.run(
            ["git", "lfs", "version"], cwd=self.folder, env=self._plain, capture_output=True, text=True, check=False
        )
        match = re.search(r"git-lfs/(\d+)\.(\d+)", result.stdout)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @property
    def has_standalone_agent(self) -> bool:
        """Whether a program of the user's (``lfs.standalonetransferagent``) moves objects without any server."""
        return any(
            line.value for line in self.lines if re.fullmatch(r"lfs\.(?:.+\.)?standalonetransferagent", line.key)
        )

    @cached_property
    def _plain(self) -> dict[str, str]:
        return without_local_variables()

    @cached_property
    def _user_lines(self) -> list[ConfigLine]:
        """What the user's repository configures and the carrier would not see."""
        seen = self._seen()
        configured = {line.key for line in self.lines if line.scope != "lfsconfig"}
        missing = []
        for line in self.lines:
            if line.scope == "lfsconfig" and line.key in configured:
                continue
            if line.scope in ("system", "global") and seen[line.key, line.value] > 0:
                seen[line.key, line.value] -= 1
            elif _RELEVANT.match(line.key) and line.key not in _OURS_ALONE:
                missing.append(line)
        return missing

    def _seen(self) -> Counter[tuple[str, str]]:
        """What is configured for the carrier without our help."""
        if not any(line.key.startswith("includeif.") for line in self.lines):  # one and the same for all repositories
            return Counter((line.key, line.value) for line in self.lines if line.scope in ("system", "global"))
        out = git_elsewhere(*INSIDE, "config", "--list", "--null", cwd=self.folder)
        return Counter(config_items(out))

    def environment(self, endpoint: Endpoint, further: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
        """Environment for git-lfs in the carrier, to reach one endpoint as :data:`REMOTE`.

        Parameters
        ----------
        endpoint
            Where objects are read from or written to.
        further
            Configuration for this call.
        """
        pairs = [(line.key, line.value) for line in self._user_lines]
        pairs += _OVERRIDES.items()
        pairs.append((f"remote.{REMOTE}.url", endpoint.url))
        # The URL is rewritten already; as its own longest prefix it is not rewritten again.
        pairs += [(f"url.{endpoint.url}.insteadof", endpoint.url), (f"url.{endpoint.url}.pushinsteadof", endpoint.url)]
        if endpoint.lfs_url:
            pairs += [("lfs.url", endpoint.lfs_url), ("lfs.pushurl", endpoint.lfs_url)]
        pairs += [("safe.barerepository", "all"), ("safe.directory", "*"), *further]
        return with_config(self._plain, pairs)


def with_config(environment: dict[str, str], pairs: list[tuple[str, str]]) -> dict[str, str]:
    """An environment that gives git configuration values, after all others.

    Examples
    --------
    >>> with_config({}, [("lfs.url", "https://example.org")])["GIT_CONFIG_VALUE_0"]
    'https://example.org'
    """
    made = {**environment, "GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        made[f"GIT_CONFIG_KEY_{number}"] = key
        made[f"GIT_CONFIG_VALUE_{number}"] = value
    return made


def carrier_for(places: Places, endpoint: Endpoint, lines: Sequence[ConfigLine]) -> Carrier:
    """The carrier of a repository, made on first use.

    Parameters
    ----------
    places
        The user's repository.
    endpoint
        What is to be reached, for messages.
    lines
        What is configured there.

    Raises
    ------
    ThetaError
        Without git-lfs.
    """
    if not has_git_lfs():
        raise ThetaError(
            f"git-lfs is not installed, and {endpoint.shown} is reached through it",
            hint="Install it (https://git-lfs.com; 'apt-get install git-lfs', 'brew install git-lfs') and run the "
            "command again; everything on this machine works without it.",
        )
    folder = os.path.join(places.theta_dir, "carrier")
    os.makedirs(os.path.join(places.theta_dir, "objects"), exist_ok=True)
    if not _is_sound(folder):
        _make(folder)
    return Carrier(places, folder, lines)


def _is_sound(folder: str) -> bool:
    return (
        os.path.isfile(os.path.join(folder, "config"))
        and os.path.isfile(os.path.join(folder, "HEAD"))
        and os.path.isdir(os.path.join(folder, "refs"))
        and os.path.isdir(os.path.join(folder, "objects"))
        and os.path.isdir(os.path.join(folder, "storage", "objects"))
    )


def _make(folder: str) -> None:
    made = os.path.join(os.path.dirname(folder), "tmp", f"carrier-{os.urandom(8).hex()}")
    try:
        for name in (os.path.join("objects", "pack"), "refs", "storage"):
            os.makedirs(os.path.join(made, name))
        # Relative to where it comes to lie.
        os.symlink(_OBJECTS_LINK, os.path.join(made, "storage", "objects"))
        for name, text in (("HEAD", "ref: refs/heads/none\n"), ("config", _CONFIG)):
            with open(os.path.join(made, name), "x", encoding="ascii") as file:
                file.write(text)
        with contextlib.suppress(OSError):
            os.replace(made, folder)
        if not _is_sound(folder):  # what stands there is damaged, not another process's new one
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def has_git_lfs() -> bool:
    """Whether git finds git-lfs."""
    return shutil.which("git-lfs", path=child_environment()["PATH"]) is not None or git_ok("lfs", "version")
