"""One version of a checkpoint: frozen data that can show itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from theta_nb.engine.diff import Parameter
from theta_nb.engine.history import Commit
from theta_nb.report.fragments import Markup, chip, details, fragment, grid, text
from theta_nb.report.grouping import block_of
from theta_nb.report.history_text import number, refs
from theta_nb.report.numbers import size
from theta_nb.report.showing import Showing
from theta_nb.report.visible import visible
from theta_nb.report.wording import PLAIN, Ink, count

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CheckpointVersion", "version_table"]


@dataclass(frozen=True)
class CheckpointVersion(Showing):
    """What a commit, or the index, has at a path.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    revision
        Where it was looked up, in the words of whoever asked.
    commit
        The commit; ``None`` for the index.
    format
        Name of the file format.
    size
        Length of the checkpoint in bytes.
    stored
        Bytes of all objects that it is rebuilt from: earlier versions that its updates are applied to, and what it
        shares with other versions, included.
    digest
        Identity of the content: equal for equal files, however they are encoded.
    parameters
        Parameter groups, in the order in which people count; those that were asked for.
    total
        Number of all parameter groups.
    recipe
        Recipe of the merge that made it, a JSON text; empty if it is none.
    """

    path: str
    revision: str
    commit: Commit | None
    format: str
    size: int
    stored: int
    digest: str
    parameters: tuple[Parameter, ...]
    total: int
    recipe: str = ""

    @property
    def numel(self) -> int:
        """Elements of the parameters shown; a value that several share counts once."""
        return sum(parameter.numel for parameter in self.parameters if not parameter.tied)

    def table(self, *, limit: int | None = None) -> str:
        """Aligned text: what it is, then one line per parameter."""
        return "\n".join(version_table(self, limit=limit))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        from theta_nb.report.history_json import commit_to_dict

        return {
            "version": 1,
            "path": self.path,
            "revision": self.revision,
            "commit": commit_to_dict(self.commit) if self.commit is not None else None,
            "format": self.format,
            "size": self.size,
            "stored": self.stored,
            "digest": self.digest,
            "parameters": [
                {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "digest": p.digest.hex(), "tied": p.tied}
                for p in self.parameters
            ],
            "recipe": self.recipe,
        }

    def to_html(self) -> str:
        """A self-contained HTML fragment: parameters folded by block."""
        return _html(self)


def version_table(version: CheckpointVersion, *, limit: int | None = None, ink: Ink = PLAIN) -> Iterator[str]:
    """What the version is, then one line per parameter."""
    yield f"{ink.bold(visible(version.path))} at {visible(version.revision)}"
    commit = version.commit
    if commit is not None:
        yield f"{ink.yellow(commit.short)}  {commit.date:%Y-%m-%d}  {visible(commit.author)}  {visible(commit.subject)}"
        names = [visible(name) for name in refs(commit)]
        metrics = [f"{visible(name)} {number(value)}" for name, value in commit.metrics.items()]
        if names or metrics:
            yield ink.green(", ".join([*names, *metrics]))
    yield _facts(version)
    yield from _recipe_lines(version.recipe)
    shown = version.parameters[:limit]
    if shown:
        yield ""
        rows = [(visible(p.name), p.dtype, _shape(p), size(p.nbytes)) for p in shown]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for (name, dtype, shape, nbytes), parameter in zip(rows, shown, strict=True):
            tied = ink.dim(f"  tied to {visible(parameter.tied)}") if parameter.tied else ""
            columns = f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {nbytes:>{widths[3]}}"
            yield columns + tied
    if len(version.parameters) > len(shown):
        yield ink.dim(f"… and {len(version.parameters) - len(shown):,} more")


def _facts(version: CheckpointVersion) -> str:
    words = [version.format, count(version.total, "parameter")]
    if version.total != len(version.parameters):
        words.append(f"{len(version.parameters):,} shown")
    words += [f"{version.numel:,} elements", size(version.size), f"{size(version.stored)} stored"]
    return f"{', '.join(words)}, digest {version.digest[:16]}"


def _recipe_lines(recipe: str) -> Iterator[str]:
    """The recipe laid out; it is untrusted text, and need not be JSON."""
    if not recipe:
        return
    try:
        laid_out = json.dumps(json.loads(recipe), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        laid_out = recipe
    yield "recipe of the merge:"
    for line in laid_out.splitlines()[:40]:
        yield f"  {visible(line)}"


def _shape(parameter: Parameter) -> str:
    return f"[{','.join(map(str, parameter.shape))}]"


def _html(version: CheckpointVersion) -> str:
    parts: list[str] = [
        Markup(f"<div><b>{text(version.path)}</b> at {text(version.revision)}</div>"),
        Markup(f"<div class='dim'>{text(_facts(version))}</div>"),
    ]
    commit = version.commit
    if commit is not None:
        chips = " ".join(chip(name) for name in refs(commit))
        chips += " ".join(chip(f"{name} {number(value)}") for name, value in commit.metrics.items())
        parts.append(
            Markup(
                f"<div><code>{text(commit.short)}</code> {commit.date:%Y-%m-%d} {text(commit.author)}: "
                f"{text(commit.subject)} {chips}</div>"
            )
        )
    if version.recipe:
        parts.append(details("recipe of the merge", list(_recipe_lines(version.recipe))[1:]))
    blocks: dict[str, list[Parameter]] = {}
    for parameter in version.parameters:
        blocks.setdefault(block_of(parameter.name), []).append(parameter)
    parts += [_block(name, members, open_=len(blocks) == 1) for name, members in blocks.items()]
    return fragment(*parts)


def _block(name: str, members: Sequence[Parameter], *, open_: bool) -> Markup:
    rows = [
        [
            Markup(f"<code>{text(p.name)}</code>"),
            p.dtype,
            Markup(f"<code>{_shape(p)}</code>"),
            size(p.nbytes),
            f"tied to {p.tied}" if p.tied else "",
        ]
        for p in members
    ]
    total = size(sum(p.nbytes for p in members if not p.tied))
    return Markup(
        f"<details{' open' if open_ else ''}><summary><code>{text(name)}</code> "
        f"<span class='dim'>{count(len(members), 'parameter')}, {total}</span></summary>"
        f"{grid([''] * 5, rows, numbers=[3])}</details>"
    )
