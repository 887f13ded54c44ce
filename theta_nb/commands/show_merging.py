"""What merge and replay print."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from theta_nb.commands.terminal import Style, count, folded, visible

if TYPE_CHECKING:
    from theta_nb.commands.merge import MergedCheckpoint, MergeResult
    from theta_nb.commands.replay import Replayed

__all__ = ["merge", "replay"]


def merge(arguments: Namespace, result: Any, style: Style) -> list[str]:
    """What was merged how, and what is left to do."""
    if getattr(arguments, "methods", False):
        return list(_methods(result, style))
    return list(_merge(result, style))


def _merge(result: MergeResult, style: Style) -> Iterator[str]:
    subject = visible(result.subject)
    if result.action == "up to date":
        yield "There is nothing to merge: HEAD has it already."
    elif result.action == "aborted":
        yield f"The merge is given up; HEAD is {subject!r} as before."
    elif result.commit:
        said = " (fast-forward: nothing had to be merged)" if result.action == "fast-forwarded" else ""
        yield f"{style.yellow(result.commit[:8])} {subject}{style.dim(said)}"
    for one in result.checkpoints:
        yield from _checkpoint(one, style)
    if result.action == "merged" and not result.checkpoints:
        yield style.dim("    no checkpoint was changed by both sides")
    if result.action == "preview":
        if not result.checkpoints:
            yield "No checkpoint was changed by both sides."
        yield style.dim("Nothing was changed.")
    if result.action == "staged":
        yield from _next(result, style)


def _checkpoint(one: MergedCheckpoint, style: Style) -> Iterator[str]:
    yield f"    {style.bold(style.path(one.path))}: {visible(one.recipe)}"
    if one.preview is not None:
        yield from (f"    {visible(line)}" for line in one.preview.lines())
    else:
        yield f"        {_counted(one.choices)}"
    if one.note:
        yield f"        {style.yellow(visible(one.note))}"


def _counted(choices: Mapping[str, int]) -> str:
    """Numbers of parameters by what was done with them."""
    return ", ".join(f"{number:,} {name}" for name, number in choices.items()) or "nothing differs"


def _next(result: MergeResult, style: Style) -> Iterator[str]:
    if result.waiting:
        yield style.yellow(f"Still in conflict: {', '.join(style.path(path) for path in result.waiting[:5])}")
        yield "Resolve and 'git add' them; then " + _end(result.under_way)
    else:
        yield f"The result is staged; {_end(result.under_way)}"


def _end(what: str) -> str:
    if what in ("", "merge"):
        return "'git commit' ends the merge." if what else "commit it when you like."
    return f"'git {what} --continue' goes on."


def _methods(result: Sequence[Any], style: Style) -> Iterator[str]:
    for one in result:
        yield f"{style.bold(one.name)}  {style.dim(one.summary)}"
        for parameter in one.parameters:
            yield f"    {parameter.name}={parameter.default}  {style.dim(parameter.help)}"


def replay(_: Namespace, result: Sequence[Replayed], style: Style) -> list[str]:
    """Whether each merge came out as it is committed."""
    lines = []
    for one in result:
        head = f"{style.bold(style.path(one.path))} at {one.commit[:8]}: {visible(one.recipe)}"
        said = [f"{count(one.same, 'parameter')} the same"] if one.same else []
        said += [f"{len(one.within)} within the tolerance of the method"] if one.within else []
        if one.agrees:
            lines += [head, "    " + style.green(", ".join(said))]
            continue
        lines += [head, "    " + style.red(f"{len(one.different)} different") + ", ".join(["", *said])]
        lines += [f"        {visible(name)}" for name in folded(list(one.different))]
    return lines
