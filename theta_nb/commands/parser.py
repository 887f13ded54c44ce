"""The grammar of ``git theta``: built once, used by the command line and by the notebook magics."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Callable
from typing import NoReturn

from theta_nb.errors import ThetaError

__all__ = ["CommandLineParser", "UsageError", "build_parser", "closest"]

_OVERVIEW = """\
git for the inside of model checkpoints: only the tensors that changed are stored, a diff names them, and a merge is a
numerical operation on them.
"""

_WORKFLOW = """\
a first session:
  git theta install                    once on every machine
  git theta track "*.safetensors"      once in every repository
  git add model.safetensors            from here on it is plain git:
  git commit -m "first weights"        add, commit, diff, checkout, merge, push
  git theta status                     which tensors have changed since

'git theta COMMAND -h' explains a command and shows examples.
"""

_SCOPES = {"global": "global", "user": "global", "repository": "local", "local": "local", "system": "system",
           "worktree": "worktree"}  # fmt: skip


class UsageError(ThetaError):
    """The command line cannot be understood."""


class CommandLineParser(argparse.ArgumentParser):
    """A parser that raises :class:`UsageError` where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Report a mistake in the arguments."""
        raise UsageError(message, hint=f"'{self.prog} -h' explains.")


def closest(word: str, words: list[str]) -> str:
    """The most similar of some words, or nothing.

    Examples
    --------
    >>> closest("trak", ["add", "track", "untrack"])
    'track'
    """
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=0.6)), "")


def build_parser(parser_class: type[argparse.ArgumentParser] = CommandLineParser) -> argparse.ArgumentParser:
    """The parser of all commands.

    Parameters
    ----------
    parser_class
        What the parser and those of the commands are instances of; it decides what happens on a mistake.

    Returns
    -------
    argparse.ArgumentParser
        Its result has ``command`` (``None`` where none is given) and the arguments of that command.

    Examples
    --------
    >>> build_parser().parse_args(["track", "*.pt"]).patterns
    ['*.pt']
    """
    parser = parser_class(
        prog="git theta",
        description=_OVERVIEW,
        epilog=_WORKFLOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=parser_class)
    for add in (_install, _uninstall, _track, _untrack, _add, _status, _ls_files, _checkout, _fsck, _gc, _env, _help):
        add(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=textwrap.dedent(description).strip(),
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _scope(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for name, meaning in (
        ("global", "your account, in ~/.gitconfig (the default)"),
        ("local", "this repository only"),
        ("worktree", "this work tree only"),
        ("system", "every account of this machine"),
    ):
        group.add_argument(f"--{name}", dest="scope", action="store_const", const=name, help=meaning)
    group.add_argument(
        "--scope",
        dest="scope",
        metavar="SCOPE",
        type=_scope_named,
        help="the same by name: " + ", ".join(_SCOPES),
    )
    parser.set_defaults(scope="global")


def _scope_named(word: str) -> str:
    if word not in _SCOPES:
        raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(_SCOPES)}")
    return _SCOPES[word]


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def _paths(parser: argparse.ArgumentParser, meaning: str, nargs: str = "*") -> None:
    parser.add_argument("paths", nargs=nargs, metavar="PATH", help=meaning)


def _install(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "install",
        "tell git about theta",
        """
        Write the filter, the merge driver and the hunk headers of theta into git's configuration.
        Values that somebody else chose are left alone; running it again changes nothing.
        """,
        """
        git theta install                    for your account, once on every machine
        git theta install --local            for one repository only
        git theta install --skip-smudge      checkouts leave manifests; 'git theta checkout' fetches weights
        """,
    )
    _scope(parser)
    parser.add_argument(
        "--skip-smudge",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether checkouts leave the small manifests instead of the checkpoints",
    )
    parser.add_argument(
        "--rich-diff",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether 'git diff' lists changed tensors instead of showing manifests as text; git then writes both "
        "checkpoints to temporary files for every diff",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace values that somebody else chose")


def _uninstall(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "uninstall",
        "take theta out of git's configuration",
        """
        Remove from git's configuration exactly what 'git theta install' wrote there.
        The .gitattributes files, the commits and the stored weights stay as they are.
        """,
        """
        git theta uninstall                  for your account
        git theta uninstall --local          for one repository only
        """,
    )
    _scope(parser)


def _track(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "track",
        "store the files of a pattern by theta; without one, list what is tracked",
        """
        Write a line for each pattern into the .gitattributes file of the current folder, and stage that file.
        A pattern without a slash holds for all folders below, too. Quote patterns, or the shell expands them.
        If git knows no theta filter yet, it is installed into this repository.
        """,
        """
        git theta track                      what is tracked, and where it says so
        git theta track model.pt
        git theta track "*.safetensors" "checkpoints/**/*.bin"
        git add --renormalize model.pt       afterwards, for a file that was committed before
        """,
    )
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="a pattern, a file or a folder")
    _json(parser)


def _untrack(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "untrack",
        "stop storing the files of a pattern by theta",
        """
        Take the lines of these patterns out of the .gitattributes file of the current folder, and stage that file.
        Earlier commits stay as they are; from the next 'git add' on, git stores the whole file.
        """,
        """
        git theta untrack "*.pt"
        git add --renormalize model.pt       store the whole file with the next commit
        """,
    )
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="as it was given to 'git theta track'")


def _add(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "add",
        "stage checkpoints, as 'git add' does",
        """
        Stage checkpoints. Plain 'git add' does the same for files that are tracked;
        this command also says which of the files are not tracked, and takes git's ignored files with --force.
        """,
        """
        git theta add model.pt
        git theta add --renormalize model.pt      a file that was committed before it was tracked
        """,
    )
    _paths(parser, "checkpoints to stage", "+")
    parser.add_argument("-f", "--force", action="store_true", help="also files that git ignores")
    parser.add_argument("--renormalize", action="store_true", help="store committed files anew, by the current rules")


def _status(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "status",
        "which tensors have changed",
        """
        Show for each tracked checkpoint which tensors differ from the last commit,
        and how many bytes storing them takes at most.
        """,
        """
        git theta status
        git theta status --json models/
        """,
    )
    _paths(parser, "only these files or folders")
    _json(parser)


def _ls_files(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "ls-files",
        "list the stored checkpoints",
        """
        List the checkpoints in the index. The remark behind a path says where the work tree has
        only the manifest, or nothing, or where git holds the whole file because it was never stored by theta.
        """,
        """
        git theta ls-files
        git theta ls-files -l                digest, format, number of tensors and size
        git theta ls-files --name-only -z | xargs -0 ls -l
        """,
    )
    _paths(parser, "only these files or folders")
    parser.add_argument("-l", "--long", action="store_true", help="with digest, format, number of tensors and size")
    parser.add_argument("-n", "--name-only", action="store_true", help="paths without remarks")
    parser.add_argument("-z", dest="nul", action="store_true", help="end names with NUL, unquoted; with --name-only")
    _json(parser)


def _checkout(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "checkout",
        "write checkpoints into the work tree",
        """
        Turn manifests in the work tree into checkpoints, straight to the disk: for what was checked out with
        skip-smudge, above theta.smudgeLimit, or while objects were missing. Files with changes of yours are kept.
        """,
        """
        git theta checkout                        all manifests of the work tree
        git theta checkout models/large.pt
        git theta checkout --source v1.0 model.pt      the file as it was at another commit
        """,
    )
    _paths(parser, "only these files or folders")
    parser.add_argument("-s", "--source", metavar="REV", help="take the content from a commit instead of the index")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite changes in the work tree")
    _json(parser)


def _fsck(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "fsck",
        "prove that everything stored can be rebuilt",
        """
        Read every object that the commits refer to, and rebuild every tensor from them.
        The exit status is 1 if anything is missing or corrupt.
        """,
        """
        git theta fsck                       what HEAD and the index refer to
        git theta fsck v1.0 main~20          some commits
        git theta fsck --all                 everything that any branch, tag or reflog refers to
        """,
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="commits to check; HEAD and the index by default")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches, tags, stashes and reflogs")
    _json(parser)


def _gc(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "gc",
        "delete objects that nothing refers to",
        """
        Delete stored objects that no branch, tag, reflog, stash, index or work tree refers to
        and that are older than a grace period. What was never pushed but is referred to stays.
        """,
        """
        git theta gc --dry-run               only say what would be deleted
        git theta gc --grace 12h             unreachable objects older than twelve hours
        """,
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="delete nothing")
    parser.add_argument(
        "--grace",
        dest="grace_days",
        metavar="AGE",
        type=_age,
        default=14.0,
        help="keep what is younger: 14d (the default), 12h, 30m, 2w, 0",
    )
    _json(parser)


def _env(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "env",
        "describe the installation, for reports of bugs",
        """
        Show versions, git's configuration of theta and where it is set, and the state of the repository.
        Passwords and tokens in URLs are struck out.
        """,
        """
        git theta env
        git theta env --json
        """,
    )
    _json(parser)


def _help(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "help",
        "explain a command",
        "Explain a command. ('git theta --help' asks git for a manual page instead; -h works everywhere.)",
        """
        git theta help track
        """,
    )
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="a command; the overview by default")


_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([mhdw]?)")
_DAYS: dict[str, Callable[[float], float]] = {
    "m": lambda n: n / 1440,
    "h": lambda n: n / 24,
    "d": lambda n: n,
    "": lambda n: n,
    "w": lambda n: n * 7,
}


def _age(text: str) -> float:
    """Days of an age such as ``12h``.

    Examples
    --------
    >>> _age("12h"), _age("2w"), _age("0")
    (0.5, 14.0, 0.0)
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write 14d, 12h, 30m, 2w or 0")
    return _DAYS[match[2]](float(match[1]))
