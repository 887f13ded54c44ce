"""What add, status, ls-files, checkout, fsck, gc and compact print: lines of text for a result."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from theta_nb.commands.terminal import Style, count, folded, human_size, visible

if TYPE_CHECKING:
    from theta_nb.commands.add import AddResult
    from theta_nb.commands.checkout import CheckedOut
    from theta_nb.commands.commit import CommitResult
    from theta_nb.commands.compact import Compacted
    from theta_nb.commands.fsck import FsckReport
    from theta_nb.commands.gc import GcReport
    from theta_nb.commands.ls_files import StoredCheckpoint
    from theta_nb.commands.status import CheckpointStatus
    from theta_nb.engine.side_load import Stored

__all__ = [
    "NOTHING_STORED",
    "add",
    "checkout",
    "commit",
    "compact",
    "facts_of",
    "fsck",
    "gc",
    "ls_files",
    "remark_of",
    "status",
]

NOTHING_STORED = [
    "No checkpoint is stored yet.",
    'Track some with git theta track "*.safetensors", then git add them.',
]
"""What is said where there is nothing to show yet."""


def add(_: Namespace, result: AddResult, style: Style) -> list[str]:
    """What was staged."""
    lines = [style.green(f"added {style.path(path)}") for path in result.added]
    lines += [stored_line(result.stored)] if result.stored else []
    return lines + [visible(note) for note in result.notes]


def stored_line(stored: Stored) -> str:
    """How the changed tensors are stored, for people.

    Examples
    --------
    >>> from theta_nb.engine.side_load import Stored
    >>> stored_line(Stored({"low-rank": 1200, "delta": 300}, 100_000))
    'stored as low-rank (1.2 kB) and delta (300 B): 1.5 % of dense'
    """
    kinds = sorted(stored.nbytes.items(), key=lambda item: -item[1])
    words = [f"{name} ({human_size(nbytes)})" for name, nbytes in kinds]
    total = sum(stored.nbytes.values())
    text = f"stored as {' and '.join(words)}"
    if not stored.dense or set(stored.nbytes) == {"dense"}:
        return text
    return f"{text}: {100 * total / stored.dense:.1f} % of dense"


def commit(_: Namespace, result: CommitResult, style: Style) -> list[str]:
    """The commit, what it carries, and which checkpoints it changed."""
    where = visible(result.branch) or "detached HEAD"
    lines = [f"{style.yellow(result.id[:8])} {visible(result.subject)} {style.dim(f'({where})')}"]
    lines += [f"    {visible(name)} = {value:g}" for name, value in result.metrics.items()]
    return lines + folded([f"    {style.path(path)}" for path in result.checkpoints])


def status(arguments: Namespace, result: Sequence[CheckpointStatus], style: Style) -> list[str]:
    """Each checkpoint that differs from the last commit, with the names of what changed."""
    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths else NOTHING_STORED
    loud = [item for item in result if item.state != "unchanged"]
    width = max((len(item.state) for item in loud), default=0)
    lines = [line for item in loud for line in _status_of(item, width, style)]
    if len(loud) < len(result):
        lines.append(style.dim(f"{count(len(result) - len(loud), 'checkpoint')} unchanged"))
    return lines


def _status_of(item: CheckpointStatus, width: int, style: Style) -> list[str]:
    emphasis = style.green if item.staged else style.red
    staged = " (staged)" if item.staged else ""
    head = f"{emphasis(f'{item.state:<{width}}')}  {style.bold(style.path(item.path))}{staged}"
    facts = facts_of(item)
    lines = [f"{head}  {style.dim(', '.join(facts))}" if facts else head]
    if item.note:
        note = item.note.replace(item.path, style.word(item.path))  # commands in it are to be typed here
        lines.append(f"    {style.yellow(visible(note))}")
    if not _is_new(item):
        names = [
            *(f"~ {name}" for name in item.changed),
            *(style.green(f"+ {name}") for name in item.added),
            *(style.red(f"- {name}") for name in item.removed),
        ]
        lines += [f"    {name}" for name in folded(names)]
    return lines


def _is_new(item: CheckpointStatus) -> bool:
    """Whether every tensor is new, which needs no list of names."""
    return len(item.added) == item.tensors


def facts_of(item: CheckpointStatus) -> list[str]:
    """Numbers that describe a checkpoint and its change, in words."""
    facts = [count(item.tensors, "tensor")] if item.tensors else []
    facts += [human_size(item.size)] if item.size else []
    kinds = (("changed", item.changed), ("added", item.added), ("removed", item.removed))
    if not _is_new(item):
        facts += [f"{len(names)} {what}" for what, names in kinds if names]
    if item.new_bytes and item.state not in ("unchanged", "deleted"):
        size = human_size(item.new_bytes)
        # What is staged is encoded already; what is not will get smaller.
        facts.append(f"{size} in new objects{_kinds(item)}" if item.staged else f"storing it takes {size} at most")
    return facts


def _kinds(item: CheckpointStatus) -> str:
    """What new objects hold, where it is not just whole tensors."""
    if item.storage.keys() <= {"dense"}:
        return ""
    return f" ({', '.join(f'{human_size(nbytes)} {update}' for update, nbytes in item.storage.items())})"


_REMARKS = {
    "complete": "",
    "stored": "",
    "manifest only": "manifest only; 'git theta checkout' writes the checkpoint",
    "missing": "missing from the work tree",
    "conflict": "unfinished merge",
    "raw": "a whole file in git; 'git add --renormalize' stores it by theta",
    "git-theta": "stored by git-theta, format 1",
    "broken": "its manifest cannot be read",
}


def ls_files(arguments: Namespace, result: Sequence[StoredCheckpoint], style: Style) -> list[str]:
    """One checkpoint a line, with a remark where something is special about it."""
    if arguments.name_only or arguments.nul:
        return [style.path(item.path) for item in result]
    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths or arguments.source else NOTHING_STORED
    rows = [_columns(item) if arguments.long else () for item in result]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for item, row in zip(result, rows, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        cells[2:] = [cell.strip().rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
        remark = remark_of(item)
        emphasis = style.red if item.state in ("broken", "conflict") else style.yellow
        tail = f"  {emphasis(f'({remark})')}" if remark else ""
        lines.append("  ".join([*cells, style.path(item.path)]) + tail)
    return lines


def remark_of(item: StoredCheckpoint) -> str:
    """What is special about a checkpoint; empty if nothing is."""
    return visible(item.message) or _REMARKS[item.state]


def _columns(item: StoredCheckpoint) -> tuple[str, ...]:
    if not item.digest:
        return ("-" * 10, "-", "-", "-")
    return (item.digest[:10], item.format, count(item.tensors, "tensor"), human_size(item.size))


def checkout(arguments: Namespace, result: Sequence[CheckedOut], style: Style) -> list[str]:
    """What was written, and what was not and why."""
    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths else ["There is no checkpoint to write."]
    lines = []
    for item in result:
        path = style.path(item.path)
        if item.action == "written":
            lines.append(style.green(f"written {path}") + style.dim(f"  ({human_size(item.nbytes)})"))
        elif item.action != "already there":
            lines.append(style.yellow(f"{path}: {visible(item.action)}"))
    there = sum(item.action == "already there" for item in result)
    if there:
        lines.append(style.dim(f"{count(there, 'checkpoint')} already there"))
    return lines


def fsck(_: Namespace, result: FsckReport, style: Style) -> list[str]:
    """What was proved, or what cannot be rebuilt."""
    checked = f"{count(result.checked_objects, 'object')} and {count(result.checked_values, 'value')} checked"
    checked += f", {human_size(result.nbytes)}"
    warnings = [style.yellow(f"warning: {visible(warning)}") for warning in result.warnings]
    if not result.problems:
        return [style.green(f"{checked}: everything can be rebuilt"), *warnings]
    # One object holds the small values of many parameters: it is named once, with all of them.
    together: dict[tuple[str, str, str, str], list[str]] = {}
    for problem in result.problems:
        message = problem.message.replace(problem.oid, problem.oid[:12]) if problem.oid else problem.message
        parameters = together.setdefault((problem.kind, message, problem.path, problem.commit), [])
        parameters += [problem.parameter] if problem.parameter else []
    lines = []
    for (kind, message, path, commit), parameters in together.items():
        where = ", ".join(
            text for text in (style.path(path) if path else "", f"commit {commit}" * bool(commit)) if text
        )
        said = visible(message if kind in message else f"{kind}: {message}")
        lines.append(style.red(said) + (style.dim(f"  ({where})") if where else ""))
        lines += [f"    {visible(name)}" for name in folded(parameters)]
    return [*lines, style.red(f"{checked}: {count(len(result.problems), 'problem')}"), *warnings]


def compact(arguments: Namespace, result: Sequence[Compacted], style: Style) -> list[str]:
    """How long chains were and are, and what reading takes."""
    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths else ["There is no checkpoint to compact."]
    lines = []
    for item in result:
        if item.before <= arguments.depth:
            lines.append(style.dim(f"{visible(item.path)}: no chain has more than {count(arguments.depth, 'update')}"))
            continue
        read = f"reading takes {human_size(item.read_after)} instead of {human_size(item.read_before)}"
        lines.append(
            f"{style.green('compacted')} {style.path(item.path)}  chains of up to {count(item.before, 'update')} now "
            f"have {item.after or 'none'}, {read}, {human_size(item.new_bytes)} in new objects"
        )
    if any(item.before > arguments.depth for item in result):
        lines.append(style.dim("Commit to keep it."))
    return lines


def gc(_: Namespace, result: GcReport, style: Style) -> list[str]:
    """What was deleted, or would be, and what stays."""
    verb = "would delete" if result.dry_run else "deleted"
    temporary = f", {count(result.temporary, 'temporary file')}" if result.temporary else ""
    lines = [
        f"{verb} {count(result.deleted, 'object')}, {human_size(result.deleted_bytes)}{temporary}",
        f"kept {count(result.kept, 'object')}, {human_size(result.kept_bytes)}",
    ]
    if result.remote:
        lines.insert(
            1, f"{verb} {count(result.pushed, 'object')}, {human_size(result.pushed_bytes)}, that {result.remote} has"
        )
    if result.recent:
        lines.append(style.dim(f"{count(result.recent, 'unused object')} younger than the grace period stay"))
    return lines
