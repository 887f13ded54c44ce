"""Where the objects of a remote are: which repository or server stands behind a name or URL.

The rules are those of git (``insteadOf``, push URLs) and of Git LFS (``lfs.url``, ``remote.<name>.lfsurl``,
``.lfsconfig``), so that our objects go where the objects of the same repository's LFS files go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, GitError, Started, git, git_text

__all__ = [
    "ConfigLine",
    "Endpoint",
    "config_lines",
    "default_remote",
    "endpoints",
    "endpoints_of",
    "mask_credentials",
    "remote_first",
    "remote_names",
]

# Up to the last @, whatever stands before it: a password may hold any character, and to hide too much does no harm.
_CREDENTIALS = re.compile(r"(?<=://)\S+(?=@)")
_SECRETS_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:token|key|secret|password|signature)[^=&\s]*)=[^&\s]*", re.I)

_CHOOSES_REMOTE = re.compile(
    r"branch\..*\.(?:push)?remote$|remote\.(?:lfsdefault|lfspushdefault|pushdefault)$", re.DOTALL
)

# What a .lfsconfig may say: git-lfs takes no more from it, because whoever writes the repository writes this file.
_SAFE_IN_LFSCONFIG = re.compile(r"lfs\.(?:url|pushurl|gitprotocol|.+\.access)|remote\..+\.lfsurl", re.DOTALL)


def mask_credentials(text: str) -> str:
    """The text with user names, passwords and tokens in URLs struck out.

    Examples
    --------
    >>> mask_credentials("https://ada:secret@example.org/models.git")
    'https://***@example.org/models.git'
    """
    return _SECRETS_IN_QUERY.sub(r"\1=***", _CREDENTIALS.sub("***", text))


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """One value of git's configuration.

    Parameters
    ----------
    scope
        ``"system"``, ``"global"``, ``"local"``, ``"worktree"``, ``"command"``, or ``"lfsconfig"``.
    key
        Section and last part in lower case.
    value
        Its value.
    """

    scope: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that objects are read from or written to.

    Parameters
    ----------
    remote
        Name of the remote, or the URL that was given instead of one.
    url
        URL of its git repository after rewriting; a path is absolute. May hold credentials.
    lfs_url
        Where the configuration sends LFS objects instead, before rewriting; empty where it says nothing.
    folder
        Folder of the repository that keeps the objects, if that is on this machine; else empty.
    push
        Whether it is written to.
    """

    remote: str
    url: str
    lfs_url: str
    folder: str
    push: bool

    @property
    def is_local(self) -> bool:
        """Whether objects are copied from store to store, without git-lfs."""
        return bool(self.folder)

    @property
    def shown(self) -> str:
        """What to call it in messages."""
        where = mask_credentials(self.folder or self.lfs_url or self.url)
        return where if self.remote in (self.url, self.folder) else f"{mask_credentials(self.remote)} ({where})"


def config_lines(places: Places) -> list[ConfigLine]:
    """All of git's configuration in the order in which it counts, what ``.lfsconfig`` may say first."""
    with Started("config", "--list", "--show-scope", "--null", cwd=places.top) as listing:
        first = _lfsconfig(places)
        words = listing.output().decode("utf-8", "surrogateescape").split("\0")[:-1]
    return [*first, *(_line(scope, item) for scope, item in zip(words[::2], words[1::2], strict=True))]


def _line(scope: str, item: str) -> ConfigLine:
    key, separator, value = item.partition("\n")
    return ConfigLine(scope, key, value if separator else "true")


def _lfsconfig(places: Places) -> list[ConfigLine]:
    """Values of ``.lfsconfig`` in the work tree, else the index, else HEAD."""
    sources = [["--blob", ":.lfsconfig"], ["--blob", "HEAD:.lfsconfig"]]
    if places.work_tree is None:
        del sources[0]
    elif os.path.isfile(os.path.join(places.work_tree, ".lfsconfig")):
        sources.insert(0, ["--file", os.path.join(places.work_tree, ".lfsconfig")])
    elif not _has_lfsconfig(places):
        return []
    for source in sources:
        try:
            out = git("config", *source, "--list", "--null", cwd=places.top)
        except GitError:
            continue
        lines = [_line("lfsconfig", item) for item in out.decode("utf-8", "surrogateescape").split("\0")[:-1]]
        return [line for line in lines if _SAFE_IN_LFSCONFIG.fullmatch(line.key)]
    return []


def _has_lfsconfig(places: Places) -> bool:
    """Whether the index has the file: one look that spares two failing ones in most repositories."""
    return bool(git("ls-files", "-z", "--", ".lfsconfig", cwd=places.top, env=LITERAL))


def remote_names(lines: Iterable[ConfigLine]) -> list[str]:
    """Names of the configured remotes, in order; ``remote.pushDefault`` and the like are none."""
    names = (line.key.split(".", 1)[1].rpartition(".") for line in lines if line.key.startswith("remote."))
    return list(dict.fromkeys(name for name, dot, key in names if dot and key in ("url", "pushurl")))


def default_remote(places: Places, *, push: bool = False, lines: Sequence[ConfigLine] | None = None) -> str:
    """The remote to use where none is named, as git and git-lfs choose it.

    Parameters
    ----------
    places
        The repository.
    push
        Whether to push to it.
    lines
        The configuration, if it was read already.

    Raises
    ------
    ThetaError
        If there is none.
    """
    lines = config_lines(places) if lines is None else lines
    config = {line.key: line.value for line in lines}
    names = remote_names(lines)
    if len(names) == 1 and all(line.value in (names[0], ".") for line in lines if _CHOOSES_REMOTE.match(line.key)):
        return names[0]  # whatever branch is checked out
    branch = _branch(places)
    keys = [f"branch.{branch}.remote", "remote.lfsdefault"]
    if push:
        keys = [f"branch.{branch}.pushremote", "remote.lfspushdefault", "remote.pushdefault", *keys]
    for key in keys:
        if config.get(key, ".") != ".":
            return config[key]
    if len(names) == 1:
        return names[0]
    if "origin" in names:
        return "origin"
    raise ThetaError(
        f"none of the remotes {', '.join(names)} is the default one" if names else "this repository has no remote",
        hint="Name one." if names else "Add one: git remote add origin URL",
    )


def _branch(places: Places) -> str:
    try:
        return git_text("symbolic-ref", "--quiet", "--short", "HEAD", cwd=places.top)
    except GitError:
        return ""


def remote_first(places: Places, words: Sequence[str]) -> tuple[str, list[str]]:
    """Split the words of a command into its remote, if the first one is that, and the others.

    A remote is the name of one, a URL, or a folder outside of the work tree.
    """
    if not words:
        return "", []
    first, rest = words[0], list(words[1:])
    if first in remote_names(config_lines(places)) or _is_elsewhere(first, places):
        return first, rest
    return "", list(words)


def _is_elsewhere(word: str, places: Places) -> bool:
    if "://" in word:
        return True
    folder = os.path.realpath(_absolute(word, places.top))
    inside = os.path.realpath(places.top)
    return os.path.isdir(folder) and folder != inside and not folder.startswith(os.path.join(inside, ""))


def endpoints(places: Places) -> list[Endpoint]:
    """Where the objects of every configured remote are, to be shown to people."""
    lines = config_lines(places)
    return [
        endpoint
        for name in remote_names(lines)
        for push in (False, True)
        for endpoint in _endpoints_of(places, lines, name, push=push, url="")
    ]


def endpoints_of(
    places: Places, remote: str, *, push: bool, url: str = "", lines: Sequence[ConfigLine] | None = None
) -> tuple[Endpoint, ...]:
    """Where the objects of one remote are read from or written to.

    Parameters
    ----------
    places
        The repository.
    remote
        Name of a remote, or a URL or path.
    push
        Whether to write; a remote may have several push URLs, and each gets the objects.
    url
        The one of its push URLs that counts, as git tells a ``pre-push`` hook; all of them by default.
    lines
        The configuration, if it was read already.

    Raises
    ------
    ThetaError
        If there is no such remote.
    """
    return _endpoints_of(places, config_lines(places) if lines is None else lines, remote, push=push, url=url)


def _endpoints_of(
    places: Places, lines: Sequence[ConfigLine], remote: str, *, push: bool, url: str
) -> tuple[Endpoint, ...]:
    redirected = _redirection(lines, remote, push=push)
    urls = [url] if url else _git_urls(places, lines, remote, push=push)
    if not urls:
        raise ThetaError(
            f"there is no remote {mask_credentials(remote)!r} here", hint="'git remote -v' lists the remotes."
        )
    made = []
    for found in urls:
        # The LFS part of a remote with several push URLs is one server if the configuration names it.
        where = _rewritten(places, lines, redirected) if redirected else found
        folder = _local_folder(where, places.top)
        made.append(Endpoint(remote, _absolute(found, places.top), redirected, folder, push))
    return tuple({(e.lfs_url or e.url): e for e in made}.values())


def _redirection(lines: Sequence[ConfigLine], remote: str, *, push: bool) -> str:
    config = {line.key: line.value for line in lines}
    keys = ["lfs.url", f"remote.{remote}.lfsurl"]
    if push:
        keys = ["lfs.pushurl", "lfs.url", f"remote.{remote}.lfspushurl", f"remote.{remote}.lfsurl"]
    return next((config[key] for key in keys if config.get(key)), "")


def _git_urls(places: Places, lines: Sequence[ConfigLine], remote: str, *, push: bool) -> list[str]:
    if remote not in remote_names(lines):
        is_url = "/" in remote or ":" in remote or os.path.isdir(os.path.join(places.top, remote))
        return [_rewritten(places, lines, remote)] if remote and is_url and not remote.startswith("-") else []
    if not push and not _rewrites(lines):
        urls = [line.value for line in lines if line.key == f"remote.{remote}.url"]
        if all(urls[:1]):
            return urls[:1]
    options = ["--push", "--all"] if push else []
    return git_text("remote", "get-url", *options, "--", remote, cwd=places.top).split("\n")


def _rewritten(places: Places, lines: Sequence[ConfigLine], url: str) -> str:
    """A URL after ``url.<base>.insteadOf``."""
    if not _rewrites(lines):
        return url
    return git_text("ls-remote", "--get-url", "--", url, cwd=places.top)


def _rewrites(lines: Sequence[ConfigLine]) -> bool:
    """Whether any URL may be rewritten; a process of git is not asked where the answer is known."""
    return any(line.key.startswith("url.") for line in lines)


def _local_folder(url: str, top: str) -> str:
    """Folder that a URL means, or nothing if it is not on this machine; by git's own rule."""
    if url.lower().startswith("file://"):
        _, root, path = url[len("file://") :].partition("/")
        from urllib.parse import unquote  # a server is reached without what it brings with it

        return unquote(root + path)
    colon, slash = url.find(":"), url.find("/")
    if colon >= 0 and not 0 <= slash < colon:  # scheme://host/path or host:path
        return ""
    return _absolute(url, top)


def _absolute(url: str, top: str) -> str:
    """The URL; a relative path starts from the top of the work tree, as it does for git."""
    colon, slash = url.find(":"), url.find("/")
    if colon >= 0 and not 0 <= slash < colon:
        return url
    return os.path.normpath(os.path.join(top, os.path.expanduser(url)))
