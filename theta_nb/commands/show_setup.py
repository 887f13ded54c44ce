"""What install, uninstall, track, untrack and env print: lines of text for a result."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from theta_nb.commands.terminal import Style, count, folded, human_size, shown_path, visible

if TYPE_CHECKING:
    from theta_nb.commands.env import EnvReport, RepositoryReport
    from theta_nb.commands.hooks import HooksResult
    from theta_nb.commands.track import PatternChange, TrackedPattern, TrackResult
    from theta_nb.commands.untrack import UntrackResult
    from theta_nb.git.configuration import ConfigEntry
    from theta_nb.git.installation import InstallResult, UninstallResult

__all__ = ["env", "install", "track", "uninstall", "untrack"]

_WHERE = {
    "global": "for your account",
    "local": "in this repository",
    "worktree": "in this work tree",
    "system": "for every account of this machine",
}


def install(_: Namespace, result: InstallResult, style: Style) -> list[str]:
    """What was written, what was left alone, and what to do next."""
    where = _WHERE[result.scope]
    if result.changed:
        lines = [style.green(f"theta is installed {where}.")]
    else:
        lines = [f"theta is installed {where} already."]
    if result.kept:
        lines += [style.yellow("Left as somebody else set it (--force replaces it):"), *_entries(result.kept)]
    if result.overriding:
        lines += [style.yellow("This differs from what theta writes, and counts here:"), *_entries(result.overriding)]
    lines += _hooks_of(result, style)
    lines += [style.yellow(f"warning: {visible(warning)}") for warning in result.warnings]
    if result.changed and not result.warnings:
        lines += [
            'Next, in a repository:              git theta track "*.safetensors"',
            "or in a clone that has manifests:   git theta pull",
        ]
    return lines


def _hooks_of(result: InstallResult, style: Style) -> list[str]:
    off = result.no_hooks
    if off is None:
        again = "theta.hooks" in result.changed
        return ["Hooks are installed again: by the filter, on its first use in a repository."] if again else []
    own = off.scope in ("local", "worktree")
    back = "git theta hooks" if own else f"git theta install --hooks{' --system' if off.scope == 'system' else ''}"
    line = (
        f"theta.hooks is {visible(off.value)} {_WHERE.get(off.scope, 'here')}: no hooks are installed, so 'git push' "
    )
    return [style.yellow(f"{line}uploads no weights. To have them: {back}")]


def uninstall(_: Namespace, result: UninstallResult, style: Style) -> list[str]:
    """What was removed, and what still counts."""
    where = _WHERE[result.scope]
    lines = [f"theta is no longer installed {where}." if result.removed else f"theta was not installed {where}."]
    if result.kept:
        lines += [style.yellow("Left as somebody else set it:"), *_entries(result.kept)]
    scopes = sorted({entry.scope for entry in result.remaining} & set(_WHERE))
    lines += [f"It is still installed {_WHERE[scope]}: git theta uninstall --{scope}" for scope in scopes]
    return lines


def _entries(entries: Iterable[ConfigEntry]) -> list[str]:
    return [
        f"  {visible(entry.key)} = {visible(entry.value)}"
        + (f"  ({visible(entry.origin.removeprefix('file:'))})" if entry.origin else "")
        for entry in entries
    ]


def track(_: Namespace, result: TrackResult | tuple[TrackedPattern, ...], style: Style) -> list[str]:
    """What is tracked now and which files need attention; or all that is tracked."""
    if isinstance(result, tuple):
        return _patterns(result, style)
    lines = [_change(change, style) for change in result.patterns]
    if result.installed is not None:
        lines.append("theta was not installed: it is now, in this repository. (In all of yours: git theta install)")
    lines += [style.yellow(f"warning: {visible(warning)}") for warning in result.warnings]
    if result.raw:
        lines.append(style.yellow("In git as a whole file until it is stored anew:"))
        lines += _renormalize(result.raw, style)
    if result.elsewhere:
        lines.append(style.yellow("Not tracked, because another line decides:"))
        lines += folded([f"  {style.path(path)}: {visible(claim)}" for path, claim in result.elsewhere])
    return lines


def _change(change: PatternChange, style: Style) -> str:
    pattern, file = shown_path(change.pattern), style.path(change.file)
    if change.action == "unchanged":
        return f"tracking {pattern} already" + style.dim(f"  ({file})")
    note = ": its line got the attributes it lacked" if change.action == "upgraded" else ""
    return style.green(f"tracking {pattern}") + style.dim(f"  ({file}{note})")


def _patterns(patterns: tuple[TrackedPattern, ...], style: Style) -> list[str]:
    if not patterns:
        return ['Nothing is tracked yet: git theta track "*.safetensors"']
    width = max(len(shown_path(pattern.pattern)) for pattern in patterns)
    lines = ["Tracked patterns"]
    for pattern in patterns:
        text = f"  {shown_path(pattern.pattern):<{width}}  " + style.dim(f"{style.path(pattern.file)}:{pattern.line}")
        if pattern.missing:
            text += style.yellow(f"  without {' '.join(pattern.missing)}: track it again to add it")
        lines.append(text)
    return lines


def _renormalize(paths: Sequence[str], style: Style) -> list[str]:
    return folded([f"  git add --renormalize {style.word(path)}" for path in paths])


def untrack(_: Namespace, result: UntrackResult, style: Style) -> list[str]:
    """What is no longer tracked, what that means for files, and what is tracked still."""
    lines = [
        f"no longer tracking {shown_path(pattern)}" + style.dim(f"  ({style.path(file)})")
        for pattern, file in result.patterns
    ]
    if result.raw:
        lines.append("The next commit of these puts the whole file into git; to do it now:")
        lines += _renormalize(result.raw, style)
    lines += [
        style.yellow(f"{style.path(path)} is still tracked through {visible(claim)}") for path, claim in result.still
    ]
    return lines


def hooks(_: Namespace, result: HooksResult, style: Style) -> list[str]:
    """Every hook with its state, and what was done."""
    verb = "removed" if result.removed else "installed"
    lines = [f"{verb} {', '.join(result.changed)}"] if result.changed else [f"nothing to be {verb}"]
    width = max(len(state.name) for state in result.states)
    for state in result.states:
        shown = style.green("ours") if state.state == "ours" else style.yellow(state.state)
        lines.append(f"  {state.name:<{width}}  {shown}" + ("  after the one that was there" if state.chained else ""))
    if result.removed:
        lines.append(
            style.yellow(
                "'git push' leaves the weights behind from now on: run 'git theta push' before it, or "
                "'git theta push --all' after it."
            )
        )
    return lines


def env(_: Namespace, result: EnvReport, style: Style) -> list[str]:
    """The report, with what looks wrong at its end."""
    lines = [f"{name:<12} {version or 'not installed'}" for name, version in result.versions.items()]
    lines += [f"{'platform':<12} {result.platform}", "", style.bold("Programs")]
    lines += [f"  {name:<10} {visible(path or 'not found')}" for name, path in result.executables.items()]
    lines += ["", style.bold("Configuration of git")]
    lines += _entries(result.configuration) or ["  none of ours"]
    if result.repository is not None:
        lines += ["", style.bold("Repository"), *_repository(result.repository, style)]
    if result.problems:
        lines += ["", style.yellow("Problems"), *(f"  {visible(problem)}" for problem in result.problems)]
    return lines


def _repository(report: RepositoryReport, style: Style) -> list[str]:
    return [
        f"  git dir    {visible(report.git_dir)}",
        f"  common dir {visible(report.common_dir)}",
        f"  work tree  {visible(report.work_tree or 'none (bare)')}",
        f"  hashes     {report.object_format}",
        f"  store      {visible(report.store)}: {count(report.objects, 'object')}, {human_size(report.nbytes)}",
        *(f"  remote     {visible(name)} {visible(url)}" for name, url in report.remotes.items()),
        *(
            f"  objects    {visible(e.remote)} {'write' if e.push else 'read'} {visible(e.address)}  ({e.through})"
            for e in report.endpoints
        ),
        *(f"  tracked    {shown_path(p.pattern)}  ({style.path(p.file)}:{p.line})" for p in report.patterns),
        *(f"  setting    {name} = {value}" for name, value in report.settings.items()),
    ]
