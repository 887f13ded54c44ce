"""The manual page, which ``git theta --help`` shows: git turns that into ``man git-theta``.

``python -m theta_nb.commands.manual > man/git-theta.1`` writes it anew; the wheel brings it to ``share/man``.
"""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar import GROUPS
from theta_nb.commands.parser import OVERVIEW, WORKFLOW

__all__ = ["manual_page"]


def manual_page() -> str:
    r"""The page in the language of ``man(7)``.

    Examples
    --------
    >>> ".B git theta track\n" in manual_page()
    True
    """
    parser = argparse.ArgumentParser(prog="git theta")
    commands = parser.add_subparsers(prog="git theta")
    title, _, rest = WORKFLOW.partition(":\n")
    session, _, note = rest.rpartition("\n\n")
    lines = [
        *('.TH GIT-THETA 1 "" theta-nb "theta-nb Manual"', ".SH NAME"),
        r"git-theta \- git for the inside of model checkpoints",
        *(".SH SYNOPSIS", ".B git theta", r"\fICOMMAND\fR [\fIARGUMENTS\fR]"),
        *(".SH DESCRIPTION", *_text(OVERVIEW), ".PP", *_text(note)),
        ".SH COMMANDS",
    ]
    for heading, members in GROUPS.items():
        lines.append(f".SS {heading.capitalize()}")
        for add in members:
            name, summary = add(commands)
            lines += [".TP", f".B git theta {_escaped(name)}", *_text(f"{summary[0].upper()}{summary[1:]}.")]
    lines += [
        *(".SH EXAMPLES", *_text(f"{title[0].upper()}{title[1:]}:"), ".PP", ".nf", *_text(session), ".fi"),
        *(".SH EXIT STATUS", "0; 1 for an error that the message explains; 2 for arguments that make no sense;"),
        "3 for a defect of ours; 130 after Ctrl-C.",
        *(".SH SEE ALSO", ".BR git (1),", ".BR gitattributes (5),", ".BR git-lfs (1)"),
    ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> list[str]:
    return [_escaped(line) for line in text.rstrip("\n").split("\n")]


def _escaped(line: str) -> str:
    line = line.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{line}" if line[:1] in (".", "'") else line


if __name__ == "__main__":
    print(manual_page(), end="")
