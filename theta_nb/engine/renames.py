"""Which removed parameter became which added one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

__all__ = ["match_renamed"]


def match_renamed(removed: Mapping[str, bytes], added: Mapping[str, bytes]) -> dict[str, str]:
    """New name by old name, for values that disappeared under one name and appeared under another.

    Where one removed and one added parameter have a value, they are a pair. Where several have it (biases that are
    all zero, tied weights), each goes where the clear pairs around it went: from those follow the prefixes that were
    exchanged (``encoder.`` became ``bert.encoder.``), tried from the most frequent on. What remains ambiguous then,
    though there is but one on either side, is a pair as well; everything else stays removed and added.

    Parameters
    ----------
    removed, added
        Digests by name.

    Examples
    --------
    >>> removed = {"enc.w": b"1", "enc.b": b"0", "enc.c": b"0"}
    >>> added = {"bert.enc.w": b"1", "bert.enc.b": b"0", "bert.enc.c": b"0"}
    >>> sorted(match_renamed(removed, added).items())
    [('enc.b', 'bert.enc.b'), ('enc.c', 'bert.enc.c'), ('enc.w', 'bert.enc.w')]
    """
    before, after = _by_digest(removed), _by_digest(added)
    shared = before.keys() & after.keys()
    pairs: dict[str, str] = {}
    for digest in shared:
        if len(before[digest]) == len(after[digest]) == 1:
            pairs[before[digest][0]] = after[digest][0]
    exchanges = [exchange for exchange, _ in sorted(_exchanges(pairs).items(), key=lambda item: (-item[1], item[0]))]
    for digest in sorted(shared):
        _match_group([name for name in before[digest] if name not in pairs], set(after[digest]), exchanges, pairs)
    return pairs


def _match_group(names: list[str], free: set[str], exchanges: list[tuple[str, str]], pairs: dict[str, str]) -> None:
    """Pair names of one value along known exchanges of prefixes."""
    if not names:
        return
    left = []
    for name in sorted(names):
        for old, new in exchanges:
            candidate = new + name[len(old) :]
            if name.startswith(old) and candidate in free:
                pairs[name] = candidate
                free.discard(candidate)
                break
        else:
            left.append(name)
    if len(left) == len(free) == 1:
        pairs[left[0]] = free.pop()


def _exchanges(pairs: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """What stands before the longest common ending of each pair, as (old prefix, new prefix)."""
    found: Counter[tuple[str, str]] = Counter()
    for old, new in pairs.items():
        size = 0
        while size < min(len(old), len(new)) and old[-1 - size] == new[-1 - size]:
            size += 1
        found[old[: len(old) - size], new[: len(new) - size]] += 1
    return found


def _by_digest(names: Mapping[str, bytes]) -> dict[bytes, list[str]]:
    groups: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, digest in names.items():
        groups[digest].append(name)
    return groups
