"""Results as text for people and as JSON for programs."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from theta_nb.commands.terminal import Style, human_size

if TYPE_CHECKING:
    from theta_nb.commands.env import EnvReport
    from theta_nb.commands.ls_files import StoredCheckpoint
    from theta_nb.commands.track import TrackedPattern, TrackResult
    from theta_nb.commands.untrack import UntrackResult
    from theta_nb.git.installation import ConfigEntry, InstallResult, UninstallResult

__all__ = ["as_json", "as_text", "shown_path"]

_MOST_NAMES = 10
_MOST_FILES = 10
_CONTROL = re.compile(r'[\x00-\x1f\x7f"\\\udc80-\udcff]')


def as_text(arguments: Namespace, result: Any, style: Style) -> str:
    """What the command line prints for a result, without a final line end; may be empty.

    Parameters
    ----------
    arguments
        From the parser: the command, and how its result is to be shown.
    result
        From :func:`theta_nb.commands.dispatch.execute`.
    style
        Emphasis.
    """
    return "\n".join(_TEXTS[arguments.command](arguments, result, style))


def as_json(arguments: Namespace, result: Any) -> str:
    """A result as one JSON object; lists stand under a name."""
    if is_dataclass(result) and not isinstance(result, type):
        value = asdict(result)
    else:
        value = {_LIST_NAMES[arguments.command]: [asdict(item) for item in result]}
    return json.dumps(value, indent=2)


_LIST_NAMES = {"track": "patterns", "status": "checkpoints", "ls-files": "checkpoints", "checkout": "checkpoints"}


def shown_path(path: str) -> str:
    r"""A path on one line: quoted as git quotes it where it holds control characters, quotes or broken UTF-8.

    Examples
    --------
    >>> print(shown_path("modèle 1.pt"), shown_path("a\nb.pt"))
    modèle 1.pt "a\nb.pt"
    """
    if not _CONTROL.search(path):
        return path

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        short = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}.get(character)
        return short or f"\\{ord(character) & 0xFF:03o}"

    return f'"{_CONTROL.sub(escape, path)}"'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _folded(items: Sequence[str], most: int) -> list[str]:
    if len(items) <= most + 1:  # a line that says "1 more" is no shorter than the one it hides
        return list(items)
    return [*items[:most], f"… and {len(items) - most} more"]


# --- install, uninstall -----------------------------------------------------------------------------------------------

_WHERE = {
    "global": "for your account",
    "local": "in this repository",
    "worktree": "in this work tree",
    "system": "for every account of this machine",
}


def _install(_: Namespace, result: InstallResult, style: Style) -> list[str]:
    where = _WHERE[result.scope]
    if result.changed:
        lines = [style.green(f"theta is installed {where}.")]
    else:
        lines = [f"theta is installed {where} already."]
    if result.kept:
        lines.append(style.yellow("Left as somebody else set it (--force replaces it):"))
        lines += [f"  {_entry(entry)}" for entry in result.kept]
    if result.overriding:
        lines.append(style.yellow("This differs from what theta writes, and counts here:"))
        lines += [f"  {_entry(entry)}" for entry in result.overriding]
    lines += [style.yellow(f"warning: {warning}") for warning in result.warnings]
    if result.changed and not result.warnings:
        lines.append('Next: git theta track "*.safetensors"')
    return lines


def _uninstall(_: Namespace, result: UninstallResult, style: Style) -> list[str]:
    where = _WHERE[result.scope]
    lines = [f"theta is no longer installed {where}."] if result.removed else [f"theta was not installed {where}."]
    if result.kept:
        lines.append(style.yellow("Left as somebody else set it:"))
        lines += [f"  {_entry(entry)}" for entry in result.kept]
    scopes = sorted({entry.scope for entry in result.remaining} & set(_WHERE))
    lines += [f"It is still installed {_WHERE[s]}: git theta uninstall --{s}" for s in scopes]
    return lines


def _entry(entry: ConfigEntry) -> str:
    origin = f"  ({entry.origin.removeprefix('file:')})" if entry.origin else ""
    return f"{entry.key} = {_one_line(entry.value)}{origin}"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")


# --- track, untrack ---------------------------------------------------------------------------------------------------


def _track(arguments: Namespace, result: TrackResult | tuple[TrackedPattern, ...], style: Style) -> list[str]:
    if isinstance(result, tuple):
        return _patterns(result, style)
    lines = []
    for change in result.patterns:
        pattern, file = shown_path(change.pattern), shown_path(change.file)
        lines.append(
            {
                "added": style.green(f"tracking {pattern}") + style.dim(f"  ({file})"),
                "upgraded": style.green(f"tracking {pattern}")
                + style.dim(f"  ({file}: its line got what it lacked, such as -text)"),
                "unchanged": f"tracking {pattern} already" + style.dim(f"  ({file})"),
            }[change.action]
        )
    if result.installed is not None:
        lines.append("theta was not installed: it is now, in this repository. (For all of yours: git theta install)")
        lines += [style.yellow(f"warning: {warning}") for warning in result.installed.warnings]
    if result.raw:
        lines.append(style.yellow("In git as a whole file until you store it anew:"))
        lines += [f"  git add --renormalize {_shell(path)}" for path in _folded(result.raw, _MOST_FILES)]
    if result.elsewhere:
        lines.append(style.yellow("Not tracked, because another line decides:"))
        lines += _folded([f"  {shown_path(path)}: {claim}" for path, claim in result.elsewhere], _MOST_FILES)
    return lines


def _patterns(patterns: tuple[TrackedPattern, ...], style: Style) -> list[str]:
    if not patterns:
        return ['Nothing is tracked yet: git theta track "*.safetensors"']
    width = max(len(shown_path(p.pattern)) for p in patterns)
    lines = ["Tracked patterns"]
    for pattern in patterns:
        text = f"  {shown_path(pattern.pattern):<{width}}  " + style.dim(f"{shown_path(pattern.file)}:{pattern.line}")
        if pattern.missing:
            text += style.yellow(f"  without {' '.join(pattern.missing)}: track it again to add it")
        lines.append(text)
    return lines


def _shell(path: str) -> str:
    """A path as a word of a POSIX shell; the line that folds others is left alone."""
    import shlex

    return path if path.startswith("… ") else shlex.quote(path) if path.isprintable() else shown_path(path)


def _untrack(_: Namespace, result: UntrackResult, style: Style) -> list[str]:
    lines = [
        f"no longer tracking {shown_path(pattern)}" + style.dim(f"  ({shown_path(file)})")
        for pattern, file in result.patterns
    ]
    if result.raw:
        lines.append("The next commit of these stores the whole file in git; to do it now:")
        lines += [f"  git add --renormalize {_shell(path)}" for path in _folded(result.raw, _MOST_FILES)]
    lines += [style.yellow(f"{shown_path(path)} is still tracked through {claim}") for path, claim in result.still]
    return lines


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _add(_: Namespace, result: Any, style: Style) -> list[str]:
    return [style.green(f"added {shown_path(path)}") for path in result.added] + list(result.notes)


_QUIET_STATES = frozenset({"unchanged"})
_NOTHING_TRACKED = [
    "No checkpoint is stored yet.",
    'Track some with git theta track "*.safetensors", then git add them.',
]


def _status(arguments: Namespace, result: Iterable[Any], style: Style) -> list[str]:
    checkpoints = list(result)
    if not checkpoints:
        return ["No checkpoint matches."] if arguments.paths else _NOTHING_TRACKED
    lines: list[str] = []
    width = max((len(c.state) for c in checkpoints if c.state not in _QUIET_STATES), default=0)
    for checkpoint in checkpoints:
        if checkpoint.state not in _QUIET_STATES:
            lines += _status_of(checkpoint, width, style)
    quiet = sum(c.state in _QUIET_STATES for c in checkpoints)
    if quiet:
        lines.append(style.dim(f"{_count(quiet, 'checkpoint')} unchanged"))
    return lines


def _status_of(checkpoint: Any, width: int, style: Style) -> list[str]:
    emphasis = style.green if checkpoint.staged else style.red
    facts = [_count(checkpoint.tensors, "tensor"), human_size(checkpoint.size)]
    facts += [
        f"{len(names)} {what}"
        for what, names in (
            ("changed", checkpoint.changed),
            ("added", checkpoint.added),
            ("removed", checkpoint.removed),
        )
        if names
    ]
    if checkpoint.new_bytes is not None:
        facts.append(f"at most {human_size(checkpoint.new_bytes)} to store")
    if not checkpoint.tensors and not checkpoint.size:
        facts = []
    staged = " (staged)" if checkpoint.staged else ""
    head = f"{emphasis(f'{checkpoint.state:<{width}}')}  {style.bold(shown_path(checkpoint.path))}{staged}"
    lines = [f"{head}  {style.dim(', '.join(facts))}" if facts else head]
    if checkpoint.note:
        lines.append(f"    {style.yellow(checkpoint.note)}")
    if checkpoint.state != "added":  # every name of a new checkpoint would be news
        names = [
            *(f"~ {name}" for name in checkpoint.changed),
            *(style.green(f"+ {name}") for name in checkpoint.added),
            *(style.red(f"- {name}") for name in checkpoint.removed),
        ]
        lines += [f"    {name}" for name in _folded(names, _MOST_NAMES)]
    return lines


_REMARKS = {
    "complete": "",
    "manifest only": "manifest only; 'git theta checkout' writes the checkpoint",
    "missing": "missing from the work tree",
    "conflict": "unfinished merge",
    "raw": "a whole file in git; 'git add --renormalize' stores it by theta",
    "git-theta": "stored by git-theta, format 1",
    "broken": "its manifest cannot be read",
}


def _ls_files(arguments: Namespace, result: Sequence[StoredCheckpoint], style: Style) -> list[str]:
    if arguments.name_only:
        return [item.path if arguments.nul else shown_path(item.path) for item in result]
    if not result and not arguments.paths:
        return _NOTHING_TRACKED
    lines = []
    rows = [_long_columns(item) for item in result] if arguments.long else [[] for _ in result]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for item, row in zip(result, rows, strict=True):
        cells = [
            f"{cell:>{w}}" if n > 1 else f"{cell:<{w}}" for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        remark = item.message or _REMARKS[item.state]
        shown = style.red if item.state in ("broken", "conflict") else style.yellow
        tail = f"  {shown(f'({remark})')}" if remark else ""
        lines.append("  ".join([*cells, shown_path(item.path)]) + tail)
    return lines


def _long_columns(item: StoredCheckpoint) -> list[str]:
    if not item.digest:
        return ["-" * 10, "-", "-", "-"]
    return [item.digest[:10], item.format, _count(item.tensors, "tensor"), human_size(item.size)]


def _checkout(arguments: Namespace, result: Iterable[Any], style: Style) -> list[str]:
    items = list(result)
    if not items:
        return ["No checkpoint matches."] if arguments.paths else ["There is no checkpoint to write."]
    lines = []
    for item in items:
        path = shown_path(item.path)
        if item.action == "written":
            lines.append(style.green(f"written  {path}") + style.dim(f"  ({human_size(item.nbytes)})"))
        elif item.action != "already there":
            lines.append(style.yellow(f"{path}: {item.action}"))
    there = sum(item.action == "already there" for item in items)
    if there:
        lines.append(style.dim(f"{_count(there, 'checkpoint')} already there"))
    return lines


# --- fsck, gc, env ----------------------------------------------------------------------------------------------------


def _fsck(_: Namespace, result: Any, style: Style) -> list[str]:
    checked = (
        f"{_count(result.checked_objects, 'object')} and {_count(result.checked_values, 'value')} checked, "
        f"{human_size(result.nbytes)}"
    )
    if not result.problems:
        return [style.green(f"{checked}: all of it can be rebuilt.")]
    lines = []
    for problem in result.problems:
        where = ", ".join(
            text
            for text in (
                f"object {problem.oid[:12]}" if problem.oid else "",
                shown_path(problem.path) if problem.path else "",
                problem.parameter,
                f"commit {problem.commit[:12]}" if problem.commit else "",
            )
            if text
        )
        lines.append(f"{style.red(problem.kind)}  {problem.message}" + (style.dim(f"  ({where})") if where else ""))
    return [*lines, style.red(f"{checked}: {_count(len(result.problems), 'problem')}.")]


def _gc(arguments: Namespace, result: Any, style: Style) -> list[str]:
    verb = "would delete" if arguments.dry_run else "deleted"
    lines = [
        f"{verb} {_count(result.deleted, 'object')}, {human_size(result.deleted_bytes)}",
        f"kept {_count(result.kept, 'object')}, {human_size(result.kept_bytes)}",
    ]
    if result.recent:
        lines.append(f"{_count(result.recent, 'unreachable object')} younger than the grace period")
    if result.temporary:
        lines.append(f"{verb} {_count(result.temporary, 'temporary file')}")
    return lines


def _env(_: Namespace, result: EnvReport, style: Style) -> list[str]:
    lines = [f"{name:<12} {version or 'not installed'}" for name, version in result.versions.items()]
    lines.append(f"{'platform':<12} {result.platform}")
    lines += [
        "",
        style.bold("Programs"),
        *(f"  {n:<10} {path or 'not found'}" for n, path in result.executables.items()),
    ]
    lines += ["", style.bold("Configuration of git")]
    lines += [f"  {_entry(entry)}" for entry in result.configuration] or ["  none of ours"]
    if result.repository is not None:
        repository = result.repository
        lines += ["", style.bold("Repository")]
        lines += [
            f"  git dir    {repository.git_dir}",
            f"  common dir {repository.common_dir}",
            f"  work tree  {repository.work_tree or 'none (bare)'}",
            f"  hashes     {repository.object_format}",
            f"  store      {repository.store}: {_count(repository.objects, 'object')}, {human_size(repository.nbytes)}",
            *(f"  remote     {name} {url}" for name, url in repository.remotes.items()),
            *(f"  tracked    {shown_path(p.pattern)}  ({shown_path(p.file)}:{p.line})" for p in repository.patterns),
            *(f"  setting    {name} = {value}" for name, value in repository.settings.items()),
        ]
    if result.problems:
        lines += ["", style.yellow("Problems"), *(f"  {problem}" for problem in result.problems)]
    return lines


_TEXTS: dict[str, Callable[[Namespace, Any, Style], list[str]]] = {
    "install": _install,
    "uninstall": _uninstall,
    "track": _track,
    "untrack": _untrack,
    "add": _add,
    "status": _status,
    "ls-files": _ls_files,
    "checkout": _checkout,
    "fsck": _fsck,
    "gc": _gc,
    "env": _env,
}
