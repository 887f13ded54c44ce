"""The arguments and the help text of each command."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable

__all__ = ["GROUPS", "Formatter"]

_SCOPES = {"global": "global", "user": "global", "repository": "local", "local": "local", "system": "system",
           "worktree": "worktree"}  # fmt: skip


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, and room for the longest name beside its explanation."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(100, max(60, shutil.get_terminal_size().columns - 2)))


_Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, description: str, examples: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        description=textwrap.dedent(description).strip(),
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  "),
        formatter_class=Formatter,
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


def _install(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "install",
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
    hooks = parser.add_mutually_exclusive_group()
    hooks.add_argument(
        "--no-hooks",
        dest="no_hooks",
        action="store_const",
        const=True,
        help="leave the hooks of repositories alone: 'git push' then uploads no weights, 'git theta push' does",
    )
    hooks.add_argument("--hooks", dest="no_hooks", action="store_const", const=False, help="take --no-hooks back")
    parser.add_argument("-f", "--force", action="store_true", help="replace values that somebody else chose")
    return "install", "tell git about theta"


def _uninstall(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "uninstall",
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
    return "uninstall", "take theta out of git's configuration"


def _track(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "track",
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
    parser.add_argument(
        "--pointers",
        action="store_true",
        help="also commit a Git LFS pointer file for each stored object, below .git_theta/: for servers that delete "
        "LFS objects without one, and for mirrors by 'git lfs fetch --all'",
    )
    _json(parser)
    return "track", "store the files of a pattern by theta; without one, list what is tracked"


def _untrack(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "untrack",
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
    return "untrack", "stop storing the files of a pattern by theta"


def _add(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "add",
        """
        Stage checkpoints. Plain 'git add' does the same for files that are tracked;
        this command also says which of the files are not tracked, and takes git's ignored files with --force.
        With --update-data an update is applied to the committed version: the file is rewritten and staged.
        With --update-type alone, what changed is stored by that type, exactly, or refused where that does not pay.
        """,
        """
        git theta add model.pt
        git theta add --renormalize model.pt      a file that was committed before it was tracked
        git theta add model.pt --update-data lora/        merge a PEFT adapter into it
        git theta add model.pt --update-type low-rank     find the factors of what changed
        git theta add model.pt --update-type sparse --update-data changes.safetensors
        """,
    )
    _paths(parser, "checkpoints to stage", "+")
    parser.add_argument("-f", "--force", action="store_true", help="also files that git ignores")
    parser.add_argument("--renormalize", action="store_true", help="store committed files anew, by the current rules")
    update = parser.add_argument_group("updates of the committed version")
    update.add_argument(
        "--update-type", metavar="TYPE", help="low-rank, sparse or ia3; without data also delta or dense"
    )
    update.add_argument(
        "--update-data",
        "--update-path",
        metavar="FILE",
        help="apply the update in a .safetensors, .pt or .bin file, or in the folder of a PEFT adapter",
    )
    update.add_argument("--rank", type=int, metavar="N", help="without data, for low-rank: at most so many ranks")
    update.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="likewise: leave singular values below this share of the largest to an exact correction",
    )
    return "add", "stage checkpoints, as 'git add' does"


def _status(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "status",
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
    return "status", "which tensors have changed"


def _ls_files(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "ls-files",
        """
        List the checkpoints in the index. The remark behind a path says where the work tree has
        only the manifest, or nothing, or where git holds the whole file because it was never stored by theta.
        """,
        """
        git theta ls-files
        git theta ls-files -l                digest, format, number of tensors and size
        git theta ls-files -l --source v1.0  the same of another commit
        git theta ls-files -z | xargs -0 ls -l
        """,
    )
    _paths(parser, "only these files or folders")
    parser.add_argument("-s", "--source", metavar="REV", help="list those of a commit; HEAD in a bare repository")
    parser.add_argument("-l", "--long", action="store_true", help="with digest, format, number of tensors and size")
    parser.add_argument("-n", "--name-only", action="store_true", help="paths without remarks")
    parser.add_argument("-z", dest="nul", action="store_true", help="only paths, unquoted, each ended by NUL")
    _json(parser)
    return "ls-files", "list the stored checkpoints"


def _checkout(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "checkout",
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
    return "checkout", "write checkpoints into the work tree"


def _push(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "push",
        """
        Upload the stored weights that commits refer to and that the remote lacks. 'git push' does so by itself;
        this is for what it left out, and for a second remote. Commits are not sent.
        """,
        """
        git theta push                       what HEAD needs and the default remote may lack
        git theta push backup --all          everything, whatever the remote is thought to have
        git theta push --dry-run origin main
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | REF", help="a remote, then branches, tags or commits")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches and tags; trust nothing")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only ask the remote what it lacks")
    _json(parser)
    return "push", "upload weights, without commits"


def _fetch(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "fetch",
        """
        Download weights into the store, whole checkpoints or some of their parameters. Files stay as they are.
        By default for HEAD and the index, from the default remote or whichever has them.
        """,
        """
        git theta fetch                      what HEAD needs
        git theta fetch origin v1.0          a commit, from one remote
        git theta fetch --parameters "encoder.layer.11.*"
        git theta fetch --all                everything that any branch or tag refers to
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | REF", help="a remote, then branches, tags or commits")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches, tags and remote branches")
    parser.add_argument("--recent", action="store_true", help="also branches that changed of late")
    parser.add_argument("-I", "--include", metavar="GLOB", action="append", default=[], help="only these paths")
    parser.add_argument("-X", "--exclude", metavar="GLOB", action="append", default=[], help="not these paths")
    parser.add_argument(
        "-p", "--parameters", metavar="GLOB", action="append", default=[], help="only parameters of these names"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only count what is not here")
    _json(parser)
    return "fetch", "download weights into the store"


def _pull(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "pull",
        """
        Download the weights that the index needs and write the checkpoints that are still manifests:
        what completes a clone that was made without theta or without its weights.
        """,
        """
        git theta pull
        git theta pull origin models/large.pt
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | PATH", help="a remote, then files or folders")
    _json(parser)
    return "pull", "download weights and write checkpoints"


def _fsck(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "fsck",
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
    return "fsck", "prove that everything stored can be rebuilt"


def _compact(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "compact",
        """
        Store checkpoints whole again that are stored as chains of updates, and stage them, to be committed.
        Their content stays the same; reading them touches fewer bytes. Earlier commits keep what they need.
        """,
        """
        git theta compact                    every checkpoint of the index
        git theta compact --depth 2 model.pt    only chains of more than two updates
        """,
    )
    _paths(parser, "checkpoints or folders (default: all)")
    parser.add_argument(
        "--depth", type=int, default=0, metavar="N", help="updates that may stay in a chain (default: 0)"
    )
    _json(parser)
    return "compact", "shorten chains of updates"


def _gc(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "gc",
        """
        Delete stored objects that no branch, tag, reflog, stash, index or work tree refers to
        and that are older than a grace period. What was never pushed but is referred to stays.
        """,
        """
        git theta gc --dry-run               only say what would be deleted
        git theta gc --grace 12h             unreachable objects older than twelve hours
        git theta gc --verify-remote         and of old commits, what the default remote confirms to have
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
    parser.add_argument(
        "--verify-remote",
        metavar="REMOTE",
        nargs="?",
        const="",
        help="also delete what only commits that are not in use need, if the remote confirms to have each object",
    )
    _json(parser)
    return "gc", "delete objects that nothing refers to"


def _hooks(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "hooks",
        """
        Install or repair the hooks of this repository, or take them out: pre-push uploads weights,
        post-checkout, post-merge and post-commit write checkpoints that are too large for git itself.
        Hooks that are there already are kept and run first. The filter does this by itself on first use.
        """,
        """
        git theta hooks                      install what is missing
        git theta hooks --remove             and do not install them again
        """,
    )
    parser.add_argument("--remove", action="store_true", help="take them out and restore what was there before")
    parser.add_argument("-f", "--force", action="store_true", help="also in a folder that other repositories share")
    _json(parser)
    return "hooks", "install, repair or remove hooks"


def _env(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "env",
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
    return "env", "describe the installation, for reports of bugs"


def _help(commands: _Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    parser = _command(
        commands,
        "help",
        "Explain a command. ('git theta --help' shows the manual page, where 'man' is installed; -h works everywhere.)",
        """
        git theta help track
        """,
    )
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="a command; the overview by default")
    return "help", "explain a command"


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


GROUPS = {
    "set up": (_install, _uninstall, _track, _untrack),
    "every day": (_add, _status, _ls_files, _checkout),
    "share": (_push, _fetch, _pull),
    "care": (_fsck, _gc, _compact, _hooks, _env, _help),
}
"""Functions that add one command each and return its name and summary, by heading of the overview."""
