"""The edge of the command line: arguments and environment come in, text and an exit status go out.

Exit status: 0; 1 for an error that the message explains, or where ``fsck`` found something; 2 for arguments that make
no sense; 3 for a defect of ours, with a log to report; 130 after Ctrl-C; 141 where the reader of a pipe has left.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence

from theta_nb.commands.parser import SEE_HELP, UsageError, build_parser, parse
from theta_nb.commands.terminal import (
    Style,
    colour_wanted,
    columns_of,
    git_allows_colour,
    prepare_streams,
    progress_bars,
    shown_path,
    silence_stdout,
    visible,
)
from theta_nb.errors import ThetaError

__all__ = ["run_command_line"]

_OK, _FAILED, _USAGE, _DEFECT, _INTERRUPTED, _BROKEN_PIPE = 0, 1, 2, 3, 130, 141


def run_command_line(argv: Sequence[str]) -> int:
    """Run one command and print its result.

    Parameters
    ----------
    argv
        Arguments without the program's name.

    Returns
    -------
    int
        Exit status.
    """
    prepare_streams()
    try:
        plumbing = _PLUMBING.get(argv[0]) if argv else None
        status = plumbing(argv[1:]) if plumbing else _run(list(argv))
        sys.stdout.flush()
    except UsageError as error:
        return _complain(error, _USAGE)
    except ThetaError as error:
        return _complain(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        _flush_or_silence()
        return _complain(ThetaError(f"{error.filename}: {error.strerror}" if error.filename else str(error)), _FAILED)
    except Exception as error:  # noqa: BLE001 - the last edge: everything else becomes a log to report
        return _defect(error, argv)
    return status


def _run(argv: list[str]) -> int:
    from theta_nb.commands import dispatch

    arguments = parse(build_parser(), argv, dispatch.command_names())
    if isinstance(arguments, str):
        print(arguments)
        return _OK
    from theta_nb.commands import printing

    context = dispatch.Context(os.getcwd(), progress_bars(sys.stderr))
    result = dispatch.execute(arguments, context)
    colour = colour_wanted(sys.stdout, os.environ) and git_allows_colour()
    style = Style(colour=colour, prefix=context.prefix, columns=columns_of(sys.stdout))
    if getattr(arguments, "json", False):
        print(printing.as_json(arguments, result))
    elif getattr(arguments, "html", None):
        _write_page(printing.as_html(result), arguments.html)
    elif getattr(arguments, "nul", False):
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(style.relative(item.path)) + b"\0" for item in result))
    else:
        _show(printing.as_text(arguments, result, style), paged=arguments.command in printing.PAGED)
    return dispatch.exit_status(arguments, result)


def _write_page(text: str, file: str) -> None:
    if file == "-":
        print(text, end="")
        return
    with open(file, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
    print(f"written {shown_path(file)}")


def _show(text: str, *, paged: bool) -> None:
    if not text:
        return
    if paged:
        from theta_nb.commands.pager import pager_command, show_paged

        pager = pager_command(sys.stdout, os.environ)
        if pager:
            show_paged(text, pager)
            return
    print(text)


# --- commands that git runs -------------------------------------------------------------------------------------------
# git passes file names as they are, also such as begin with a dash: no parser may look at them.


def _clean(argv: Sequence[str]) -> int:
    from theta_nb.git.filter_process import clean_once

    clean_once(_only(argv, "clean"), 0, sys.stdout.buffer)
    return _OK


def _smudge(argv: Sequence[str]) -> int:
    from theta_nb.git.filter_process import smudge_once

    smudge_once(_only(argv, "smudge"), 0, sys.stdout.buffer)
    return _OK


def _only(argv: Sequence[str], name: str) -> str:
    if len(argv) > 1:
        raise UsageError(f"'{name}' is started by git and takes one path", hint=SEE_HELP)
    return argv[0] if argv else ""


def _merge_driver(argv: Sequence[str]) -> int:
    from theta_nb.git.merge_driver import merge_driver
    from theta_nb.git.standard_error import warn_on_stderr

    keep_base = bool(argv) and argv[0] == "--base"
    words = argv[1:] if keep_base else argv
    if not 4 <= len(words) <= 5:  # the fifth is the length of conflict markers, of which there are none
        raise UsageError("'merge-driver' is started by git, with %O %A %B %P %L", hint=SEE_HELP)
    return merge_driver(words[0], words[1], words[2], words[3], keep_base=keep_base, warn=warn_on_stderr)


def _diff_driver(argv: Sequence[str]) -> int:
    from theta_nb.git.diff_driver import diff_driver

    if not argv:
        raise UsageError("'diff-driver' is started by git, with a path and two files", hint=SEE_HELP)
    print("\n".join(diff_driver(argv, terminal=sys.stdout.isatty())))
    return _OK


def _filter_process(argv: Sequence[str]) -> int:
    from theta_nb.git.filter_process import run

    return run()


def _hook(argv: Sequence[str]) -> int:
    name = argv[0] if argv else ""
    if name == "pre-push":
        return _pre_push(argv[1:])
    if name == "pre-commit":
        return _pre_commit()
    if name == "prepare-commit-msg":
        return _prepare_commit_msg(argv[1:])
    if name in ("post-checkout", "post-merge", "post-commit", "post-rewrite"):
        return _complete(rebased=list(argv[:2]) == ["post-rewrite", "rebase"])
    raise UsageError("'hook' is started by the hooks that 'git theta hooks' installs", hint=SEE_HELP)


def _pre_push(argv: Sequence[str]) -> int:
    from theta_nb.git.hook_entry import pre_push
    from theta_nb.git.places import find_places
    from theta_nb.git.standard_error import warn_on_stderr

    file = ""
    if argv[:1] == ["--file"]:
        file, argv = argv[1], argv[2:]
    data = sys.stdin.buffer.read()
    with progress_bars(sys.stderr)("uploading") as progress:
        return pre_push(find_places(), argv, data, file=file, progress=progress, tell=warn_on_stderr)


def _pre_commit() -> int:
    from theta_nb.git.hook_entry import pre_commit
    from theta_nb.git.places import find_places

    pre_commit(find_places())
    return _OK


def _prepare_commit_msg(argv: Sequence[str]) -> int:
    from theta_nb.git.merge_trailers import note_merges
    from theta_nb.git.places import find_places

    if not argv:
        raise UsageError("the hook is given no message", hint=SEE_HELP)
    note_merges(find_places(), argv[0])
    return _OK


def _complete(*, rebased: bool) -> int:
    from theta_nb.git.hook_entry import pending_paths, pointers_wait
    from theta_nb.git.places import find_places

    # What the user's command was told about pathspecs ('git --literal-pathspecs') is not about ours.
    for way in ("LITERAL", "GLOB", "NOGLOB", "ICASE"):
        os.environ.pop(f"GIT_{way}_PATHSPECS", None)
    places = find_places()
    if pointers_wait(places):
        from theta_nb.git.pointers import sync_pointers

        sync_pointers(places)
    paths = pending_paths(places, rebased=rebased)
    if paths:
        from theta_nb.commands.checkout import checkout

        with progress_bars(sys.stderr)("writing") as progress:
            checkout(places, [f":(top,literal){path}" for path in paths], progress=progress)
    return _OK


_PLUMBING: dict[str, Callable[[Sequence[str]], int]] = {
    "clean": _clean,
    "smudge": _smudge,
    "merge-driver": _merge_driver,
    "diff-driver": _diff_driver,
    "filter-process": _filter_process,
    "hook": _hook,
}


# --- what went wrong --------------------------------------------------------------------------------------------------


def _complain(error: BaseException, status: int) -> int:
    colour = Style(colour=colour_wanted(sys.stderr, os.environ))
    text = visible(re.sub(r"\s*\n\s*", " ", str(error).strip()))
    with contextlib.suppress(OSError):  # a closed terminal is no reason for a traceback
        print(f"{colour.red('theta:')} {text}", file=sys.stderr, flush=True)
    return status


def _flush_or_silence() -> None:
    """Standard output may be what failed (a full disk), and would fail once more, with a traceback, at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        silence_stdout()


def _defect(error: Exception, argv: Sequence[str]) -> int:
    from theta_nb.commands.defects import write_log

    where = write_log(error, argv)
    kind = type(error).__name__
    _complain(ThetaError(f"a defect of theta-nb stopped this command ({kind})", hint=f"Please report {where}"), _DEFECT)
    return _DEFECT
