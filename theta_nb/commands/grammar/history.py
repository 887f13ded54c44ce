"""Commands that compare and look back: diff, log, show, blame."""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar.arguments import Commands, command, json_option

__all__ = ["blame", "diff", "log", "show"]

SORT_KEYS = ("name", "relative", "delta", "max", "changed", "flips", "cosine", "size", "status")


def diff(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta diff``."""
    parser = command(
        commands,
        "diff",
        """
        Show which tensors differ between two versions of each checkpoint, and by how much. As for 'git diff': without
        a commit the work tree against the index, with one against that commit, with two one against the other.
        Only the values that differ are read.
        """,
        """
        git theta diff                       what is not staged yet
        git theta diff HEAD~1 HEAD model.safetensors --sort relative --top 20
        git theta diff --stat v1.0..main     which tensors, without reading a value
        git theta diff main --filter "encoder.*" --html changes.html
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REV | PATH", help="at most two commits, then files or folders")
    parser.add_argument(
        "--staged", "--cached", dest="staged", action="store_true", help="the index against HEAD or the given commit"
    )
    parser.add_argument("--stat", action="store_true", help="only which tensors differ, counted by block of the model")
    parser.add_argument(
        "-F", "--filter", dest="filters", metavar="GLOB", action="append", default=[], help="only these parameters"
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        type=_sort_key,
        choices=SORT_KEYS,
        default="name",
        help=f"order: {', '.join(SORT_KEYS)}",
    )
    parser.add_argument("--top", metavar="N", type=_number, help="only the first N parameters, in that order")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print tables for an issue or a review")
    form.add_argument("--html", metavar="FILE", help="write a page that needs nothing else; '-' prints it")
    form.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    return "diff", "which tensors differ between two versions, and by how much"


def log(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta log``."""
    parser = command(
        commands,
        "log",
        """
        Show for each commit what it did to a checkpoint: how many tensors changed, how many bytes it added to the
        store, and the metrics it was committed with. Renames of the file are followed.
        """,
        """
        git theta log                        every tracked checkpoint
        git theta log model.safetensors
        git theta log -n 10 main..tuning model.safetensors
        git theta log --storage model.pt     what each commit cost, by update type
        git theta log --json -- old-name.pt  a file that exists in history only
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REV | PATH", help="commits or ranges A..B, then files or folders")
    parser.add_argument("-n", "--max-count", metavar="N", type=_number, help="only the newest N commits")
    parser.add_argument("--storage", action="store_true", help="say what the stored bytes are: dense or updates")
    parser.add_argument("--first-parent", action="store_true", help="follow only the first parent of merges")
    parser.add_argument("--all", dest="all_", action="store_true", help="begin at all branches and tags")
    json_option(parser)
    return "log", "what each commit did to a checkpoint"


def show(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta show``."""
    parser = command(
        commands,
        "show",
        """
        Show one version of a checkpoint: the commit with its metrics, the format, and every parameter with its
        dtype, shape and size. Nothing is read but the manifest.
        """,
        """
        git theta show model.safetensors                      as it is at HEAD
        git theta show v1.0:model.safetensors "encoder.layer.5.*"
        git theta show :model.safetensors                     as it is staged
        """,
    )
    parser.add_argument("spec", metavar="[REV:]PATH", help="a version; ':PATH' is the index, and HEAD is the default")
    parser.add_argument(
        "patterns", nargs="*", default=[], metavar="PATTERN", help="only parameters of these names (globs)"
    )
    json_option(parser)
    return "show", "one version of a checkpoint"


def blame(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta blame``."""
    parser = command(
        commands,
        "blame",
        """
        Show for each parameter the commit that gave it its present value. What came with a merge is attributed to
        the commit on the branch that made it.
        """,
        """
        git theta blame model.safetensors
        git theta blame model.safetensors "encoder.layer.5.*" "pooler.*"
        git theta blame --source v1.0 model.safetensors
        """,
    )
    parser.add_argument("path", metavar="PATH", help="a checkpoint")
    parser.add_argument(
        "patterns", nargs="*", default=[], metavar="PATTERN", help="only parameters of these names (globs)"
    )
    parser.add_argument("-s", "--source", metavar="REV", help="the version of a commit; HEAD by default")
    json_option(parser)
    return "blame", "which commit last changed each parameter"


def _sort_key(text: str) -> str:
    """A key, or the beginning of just one.

    Examples
    --------
    >>> _sort_key("rel"), _sort_key("name")
    ('relative', 'name')
    """
    found = [key for key in SORT_KEYS if key == text] or [key for key in SORT_KEYS if text and key.startswith(text)]
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SORT_KEYS)}")
    return found[0]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)
