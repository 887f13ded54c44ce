"""Which paths the theta filter handles, and which line of which attributes file says so: git is asked.

git looks attributes up in several places (the work tree's files from the top down, ``info/attributes``, a global
file), with macros and its own pattern language. Nothing here matches a pattern against a path: where a question goes
beyond ``git check-attr``, the pattern is handed to git in a file of its own and git says which paths it matches.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from theta_nb.errors import ThetaError
from theta_nb.git.attributes_file import AttributesFile, Rule, quote_pattern
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git
from theta_nb.git.tracked import TrackedBlob, filter_of, resolve, tracked_in_index

__all__ = [
    "Claim",
    "attribute_files",
    "claim_of",
    "filters_of",
    "paths_matching",
    "require_work_tree",
    "rooted",
    "sample_path",
    "tracked_in_tree",
    "tracked_paths",
]

FILTER = "theta"
_PROBE = "theta-probe"
_GLOB = re.compile(r"[\\*?\[]")


def require_work_tree(places: Places) -> str:
    """Top of the work tree.

    Raises
    ------
    ThetaError
        In a bare repository, or inside the ``.git`` folder.
    """
    if places.work_tree is not None:
        return places.work_tree
    raise ThetaError(
        f"there is no work tree here, only {places.git_dir}", hint="Run the command in the work tree of a clone."
    )


# --- asking git -------------------------------------------------------------------------------------------------------


def filters_of(
    paths: Iterable[str], places: Places, *, cached: bool = False, revision: str | None = None
) -> dict[str, str]:
    """Value of the ``filter`` attribute of paths.

    Parameters
    ----------
    paths
        Relative to the top of the work tree; they need not exist.
    places
        The repository.
    cached
        Whether the index's attributes count instead of the work tree's.
    revision
        A commit or tree whose attributes count; the only way that works in a bare repository.

    Returns
    -------
    dict
        By path; ``"unspecified"``, ``"unset"`` and ``"set"`` are git's words for no, ``-filter`` and a bare name.

    Raises
    ------
    GitError
        If the revision does not exist, or there is no work tree to read.
    """
    if revision is None:
        return filter_of(places, paths, cached=cached)
    with tempfile.TemporaryDirectory(prefix="theta-") as folder:
        # 'git check-attr --source' came with git 2.40.
        index = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        git("read-tree", f"{revision}^{{tree}}", cwd=places.top, env=index)
        return _check_attr("filter", paths, places, "--cached", env=index)


def _check_attr(
    name: str, paths: Iterable[str], places: Places, *options: str, config: str = "", env: dict[str, str] | None = None
) -> dict[str, str]:
    data = b"".join(os.fsencode(path) + b"\0" for path in paths)
    before = ["-c", config] if config else []
    out = git(*before, "check-attr", *options, "-z", "--stdin", name, cwd=places.top, data=data, env=env)
    words = out.split(b"\0")[:-1]
    return {os.fsdecode(path): os.fsdecode(value) for path, value in zip(words[::3], words[2::3], strict=True)}


def tracked_in_tree(places: Places, revision: str, paths: Sequence[str] = ()) -> list[TrackedBlob]:
    """Tracked files of a commit by the attributes of that commit, also in a bare repository.

    Parameters
    ----------
    places
        The repository.
    revision
        A commit.
    paths
        Files or folders relative to the current directory; everything by default.

    Raises
    ------
    GitError
        If there is no such commit.
    """
    where = (
        ["--full-name", resolve(revision, places.cwd), "--", *paths]
        if paths
        else ["--full-tree", resolve(revision, places.cwd)]
    )
    blobs = []
    for record in git("ls-tree", "-r", "-z", *where, cwd=places.cwd).split(b"\0")[:-1]:
        info, _, name = record.partition(b"\t")
        mode, _, oid = info.decode("ascii").split(" ")
        if mode.startswith("100"):  # symbolic links and submodules never reach a filter
            blobs.append(TrackedBlob(os.fsdecode(name), oid, mode == "100755", in_index=False))
    filters = filters_of([blob.path for blob in blobs], places, revision=revision)
    return [blob for blob in blobs if filters[blob.path] == FILTER]


def tracked_paths(places: Places) -> list[str]:
    """Paths of the index that the theta filter handles, sorted.

    Raises
    ------
    ThetaError
        If there is no work tree.
    """
    require_work_tree(places)
    return list(dict.fromkeys(blob.path for blob in tracked_in_index(places)))


# --- patterns ---------------------------------------------------------------------------------------------------------


def rooted(pattern: str, folder: str) -> str:
    """A pattern of ``folder``'s attributes file as one of the top's.

    Examples
    --------
    >>> rooted("*.pt", "models"), rooted("a/*.pt", "models"), rooted("*.pt", "")
    ('models/**/*.pt', 'models/a/*.pt', '*.pt')
    """
    if not folder:
        return pattern
    folder = _GLOB.sub(r"\\\g<0>", folder)
    anchored = "/" in pattern.rstrip("/")
    return f"{folder}/{pattern.lstrip('/')}" if anchored else f"{folder}/**/{pattern}"


def sample_path(pattern: str, folder: str) -> str:
    """A path that a pattern of ``folder`` most likely matches, to ask git about where no such file exists yet.

    Examples
    --------
    >>> sample_path("**/run-[0-9]/*.pt", "models")
    'models/run-0/x.pt'
    """
    text = pattern.lstrip("/").replace("**/", "").replace("**", "x")
    text = re.sub(r"\\(.)|\[[!^]?\]?([^\]])[^\]]*\]|[*?]", lambda m: m[1] or m[2] or "x", text)
    return f"{folder}/{text}" if folder else text


def paths_matching(pattern: str, folder: str, places: Places, *, also: Sequence[str] = ()) -> list[str]:
    """Files of the index and new files of the work tree that a pattern matches, as git matches it.

    Parameters
    ----------
    pattern
        As it would stand in the attributes file of ``folder``.
    folder
        Relative to the top; empty for the top itself.
    places
        The repository.
    also
        Further paths to ask about, which need not exist.
    """
    top = require_work_tree(places)
    where = [f":(top,literal){folder}"] if folder else []
    out = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *where, cwd=top)
    paths = dict.fromkeys(os.fsdecode(path) for path in out.split(b"\0")[:-1])
    values = _ask_rules([rooted(pattern, folder)], [*paths, *also], places)
    return sorted(path for path, value in values.items() if value == "0")


def _ask_rules(patterns: Sequence[str], paths: Iterable[str], places: Places) -> dict[str, str]:
    """For each path the number of the last pattern that matches it, as text, among patterns of the top."""
    with tempfile.NamedTemporaryFile(prefix="theta-", suffix=".attributes") as file:
        for number, pattern in enumerate(patterns):
            file.write(os.fsencode(f"{quote_pattern(pattern)} {_PROBE}={number}\n"))
        file.flush()
        return _check_attr(_PROBE, paths, places, config=f"core.attributesFile={file.name}")


# --- who claims a path ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """The rule that gives a path its filter.

    Parameters
    ----------
    file
        Attributes file, relative to the top where it lies below it.
    folder
        Folder whose paths it rules, relative to the top; ``None`` for files that come after all folders' own
        (``info/attributes``).
    rule
        The line.
    """

    file: str
    folder: str | None
    rule: Rule

    def __str__(self) -> str:
        return f"'{self.rule.pattern}' in {self.file}, line {self.rule.number}"


def attribute_files(places: Places, *, path: str | None = None) -> list[tuple[str, str | None, AttributesFile]]:
    """Attributes files with their shown name and folder, in the order in which git applies them; later ones win.

    Parameters
    ----------
    places
        The repository.
    path
        Only the files that count for this path; those of the whole work tree by default.
    """
    top = require_work_tree(places)
    if path is None:
        spec = ":(top,glob)**/.gitattributes"
        out = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", spec, cwd=top)
        names = {os.fsdecode(name) for name in out.split(b"\0")[:-1]} | {".gitattributes"}
        folders = sorted((os.path.dirname(name) for name in names), key=lambda f: (bool(f), f.count("/"), f))
    else:
        parts = os.path.dirname(path).split("/")
        folders = list(dict.fromkeys(["", *("/".join(parts[: n + 1]) for n in range(len(parts)))]))
    found: list[tuple[str, str | None, AttributesFile]] = []
    shared = _global_file(places)
    if shared:
        found.append((shared, "", AttributesFile.read(os.path.realpath(shared))))
    for folder in folders:
        name = os.path.join(folder, ".gitattributes")
        if not os.path.islink(os.path.join(top, name)):  # git does not follow it
            found.append((name, folder, AttributesFile.read(os.path.join(top, name))))
    info = os.path.join(places.common_dir, "info", "attributes")
    found.append((info, None, AttributesFile.read(os.path.realpath(info))))
    return found


def _global_file(places: Places) -> str | None:
    try:
        return os.fsdecode(git("config", "--path", "core.attributesFile", cwd=places.top)).removesuffix("\n")
    except GitError:
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
        return os.path.join(base, "git", "attributes")


def claim_of(path: str, places: Places) -> Claim | None:
    """The rule that decides the filter of a path, or ``None`` if no rule says anything about it.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    places
        The repository.
    """
    claims: list[Claim] = []
    files = attribute_files(places, path=path)
    macros = {name for _, _, file in files for name in file.macros}
    for name, folder, file in files:
        for rule in file.rules:
            if rule.filter is not None or any(a.lstrip("-!") in macros for a in rule.attributes):
                claims.append(Claim(name, folder, rule))
    if not claims:
        return None
    patterns = [rooted(claim.rule.pattern, claim.folder or "") for claim in claims]
    number = _ask_rules(patterns, [path], places)[path]
    return claims[int(number)] if number.isdecimal() else None
