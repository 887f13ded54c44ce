"""What a push needs at the remote: the objects of every manifest that is new to it.

Found by walking the pushed commits and by content. No side record says what was pushed, so there is none to be lost or
to be wrong: commits of a rebase, of a merge, from before the installation or from another clone are all the same.

A remote-tracking ref is such a record: the name may stand for another repository by now, or for a new one. So it counts
where the remote, asked once, lists its commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from theta_nb.git.endpoints import ConfigLine, config_lines, endpoints_of, remote_names
from theta_nb.git.places import Places
from theta_nb.git.process import GitError, git
from theta_nb.git.walk import manifest_texts, object_lines, objects_in

__all__ = ["RefUpdate", "objects_of_push", "objects_of_revisions", "ref_updates"]

_MAX_EDGE = 20
# A replacement (git replace) is what this repository shows, not what is pushed.
_AS_PUSHED = {"GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1"}


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One line that git tells a ``pre-push`` hook.

    Parameters
    ----------
    local_ref, local_oid
        What is pushed; the id is all zeros where the remote's ref is deleted.
    remote_ref, remote_oid
        What it replaces; all zeros for a new ref, and possibly unknown here.
    """

    local_ref: str
    local_oid: str
    remote_ref: str
    remote_oid: str


def ref_updates(text: str) -> list[RefUpdate]:
    r"""The lines of a ``pre-push`` hook's standard input; there may be none.

    Examples
    --------
    >>> ref_updates("refs/heads/main 12ab refs/heads/main 00\n")[0].remote_ref
    'refs/heads/main'
    """
    # Only a line feed ends a line: names of refs may hold what else Python takes for line ends.
    lines = (line.split(" ") for line in text.split("\n"))
    return [RefUpdate(*words) for words in lines if len(words) == 4]


def objects_of_push(places: Places, remote: str, updates: Iterable[RefUpdate], *, url: str = "") -> dict[str, int]:
    """Objects that the pushed commits, tags, trees and blobs refer to and that the remote may lack.

    What the remote's own commits reach is taken to be there: the hook has pushed its objects, or they came from there.
    Those are the commits that are replaced, and those of remote-tracking refs that the remote lists, which is asked
    only if that makes a difference.

    Parameters
    ----------
    places
        The repository.
    remote
        Name of the remote, or its URL where it has no name.
    updates
        What is pushed.
    url
        Where to, as git tells a ``pre-push`` hook; by default wherever the configuration has the remote pushed to.

    Returns
    -------
    dict
        Lengths by name. Values to which a revert goes back may be among them although they are there.

    Raises
    ------
    GitError
        If the history cannot be walked.
    """
    wanted = list(updates)
    pushed = [update for update in wanted if update.local_oid.strip("0")]
    new = [update.local_oid for update in pushed]
    old = [update.remote_oid for update in wanted if update.remote_oid.strip("0")]
    if not new:
        return {}
    lines = config_lines(places)
    tips = _tracking(places, lines, remote)
    is_new_there = any(not update.remote_oid.strip("0") for update in pushed)
    if tips and (is_new_there or _count(places, new, old) != _count(places, new, [*old, *tips])):
        tips &= _listed(places, lines, remote, url)
    return _objects(places, lines, remote, new, [*old, *tips])


def objects_of_revisions(places: Places, revisions: Sequence[str], *, remote: str = "") -> dict[str, int]:
    """Objects of everything that some revisions reach.

    Parameters
    ----------
    places
        The repository.
    revisions
        Arguments of ``git rev-list``; options first.
    remote
        A remote, to be left out: what its remote-tracking refs reach, as far as it lists them now. Nothing is left out
        by default.

    Raises
    ------
    GitError
        If a revision does not exist or the history cannot be walked.
    """
    options = [word for word in revisions if word.startswith("--")]
    names = [word for word in revisions if not word.startswith("--")]
    lines = config_lines(places)
    tips = _tracking(places, lines, remote) if remote else set()
    if tips:
        tips &= _listed(places, lines, remote)
    return _objects(places, lines, remote, names, sorted(tips), options)


def _tracking(places: Places, lines: Sequence[ConfigLine], remote: str) -> set[str]:
    """What the remote-tracking refs of a remote name."""
    names = remote_names(lines)
    # With push URLs of its own, those refs tell of another repository, or of one of several.
    if remote not in names or any(line.key == f"remote.{remote}.pushurl" for line in lines):
        return set()
    # The refs of a remote 'a/b' lie among those of a remote 'a'.
    inner = tuple(f"refs/remotes/{name}/" for name in names if name.startswith(f"{remote}/"))
    out = git("for-each-ref", "--format=%(objectname) %(refname)", f"refs/remotes/{remote}/", cwd=places.top)
    refs = (line.partition(" ") for line in out.decode("utf-8", "surrogateescape").split("\n")[:-1])
    return {oid for oid, _, ref in refs if not ref.startswith(inner)}


def _listed(places: Places, lines: Sequence[ConfigLine], remote: str, url: str = "") -> set[str]:
    """Tips of the branches that the remote has now, wherever it is pushed to; none if it cannot be asked."""
    read = {endpoint.url for endpoint in endpoints_of(places, remote, push=False, lines=lines)}
    found = []
    for endpoint in endpoints_of(places, remote, push=True, url=url, lines=lines):
        # By its name git reaches it with what is configured for it, such as a proxy. A URL is rewritten already; as its
        # own longest prefix it is not rewritten again.
        where, as_it_is = endpoint.url, ["-c", f"url.{endpoint.url}.insteadOf={endpoint.url}"]
        if endpoint.url in read:
            where, as_it_is = remote, []
        try:
            out = git(*as_it_is, "ls-remote", "--heads", "--", where, cwd=places.top)
        except GitError:  # whether the push fails, too, is not decided here
            return set()
        found.append({line.partition(b"\t")[0].decode("ascii") for line in out.split(b"\n")[:-1]})
    return set.intersection(*found)


def _count(places: Places, new: Sequence[str], without: Sequence[str]) -> int:
    """Commits that some reach and others do not."""
    options = ("--count", "--ignore-missing", "--stdin")
    return int(git("rev-list", *options, cwd=places.top, data=_range(new, without), env=_AS_PUSHED))


def _range(new: Iterable[str], without: Iterable[str]) -> bytes:
    lines = [*new, *(f"^{oid}" for oid in without)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _objects(
    places: Places,
    lines: Sequence[ConfigLine],
    remote: str,
    new: Sequence[str],
    without: Sequence[str],
    options: Sequence[str] = (),
) -> dict[str, int]:
    # The remote's old commit is often unknown here; --ignore-missing passes over it.
    listed = git(
        "rev-list",
        "--objects",
        "--no-object-names",
        "--boundary",
        "--ignore-missing",
        "--missing=print",
        *options,
        "--stdin",
        cwd=places.top,
        data=_range(new, without),
        env=_AS_PUSHED,
    )
    words = listed.split()
    oids = [word for word in words if word[:1] not in b"?-"]
    promised = [word[1:] for word in words if word.startswith(b"?")]
    if promised and not _is_promisor(lines, remote):
        _fetch_promised(places, lines, promised)
        oids += promised
    objects = objects_in(_lines_of(places, oids))
    if objects and not any(_is_promisor(lines, name) for name in remote_names(lines)):
        # Most tensors of a new version are those of the one before, whose commit is there with all its objects.
        edge = [word[1:].decode("ascii") for word in words if word.startswith(b"-")]
        for oid in objects_in(_lines_of(places, _blobs_at(places, edge[:_MAX_EDGE]))):
            objects.pop(oid, None)
    return objects


def _lines_of(places: Places, oids: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for _, text in manifest_texts(places, oids, env=_AS_PUSHED):
        found.update(object_lines(text))
    return found


def _blobs_at(places: Places, commits: Sequence[str]) -> list[bytes]:
    blobs: dict[bytes, None] = {}
    for commit in commits:
        out = git("ls-tree", "-r", "-z", "--full-tree", commit, cwd=places.top, env=_AS_PUSHED)
        records = (record.partition(b"\t")[0].split(b" ") for record in out.split(b"\0")[:-1])
        blobs.update(dict.fromkeys(oid for mode, _, oid in records if mode.startswith(b"100")))
    return list(blobs)


def _is_promisor(lines: Sequence[ConfigLine], remote: str) -> bool:
    """Whether a partial clone left things out because this remote has them."""
    config = {line.key: line.value for line in lines}
    return config.get(f"remote.{remote}.promisor", "").lower() in ("true", "1", "yes", "on") or (
        config.get("extensions.partialclone") == remote
    )


def _fetch_promised(places: Places, lines: Sequence[ConfigLine], oids: Sequence[bytes]) -> None:
    """Fetch what a partial clone left out, all at once: reading would fetch one object after the other."""
    for name in remote_names(lines):
        if not _is_promisor(lines, name):
            continue
        options = ("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none", "--stdin")
        git("-c", "fetch.negotiationAlgorithm=noop", "fetch", *options, name, cwd=places.top, data=b"\n".join(oids))
        return
    raise GitError(f"git object {oids[0].decode('ascii')} is missing", returncode=128, hint="'git fsck' says more.")
