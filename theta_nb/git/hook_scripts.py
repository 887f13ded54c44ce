"""The hook files: a few lines of shell each, which start ``git-theta hook NAME`` where there is something to do.

A hook that was there before is kept beside ours as ``NAME.before-theta`` and runs first, with the same arguments and
input. Source: ``githooks(5)``.
"""

from __future__ import annotations

__all__ = ["HOOKS", "MARK", "POINTER_HOOKS"]

MARK = "# managed by theta-nb"
"""What tells our files from others."""

_HEAD = f"""#!/bin/sh
{MARK}; 'git theta hooks --remove' takes it out again
"""

# Without git-theta the objects cannot be uploaded, and a push that leaves them behind must not succeed.
_PRE_PUSH = (
    _HEAD
    + """command -v git-theta >/dev/null 2>&1 || {
    echo >&2 "theta: the checkpoints of this repository cannot be uploaded: git-theta is not on the PATH."
    echo >&2 "theta: activate its environment, or push the text alone with 'git push --no-verify'."
    exit 2
}
exec git-theta hook pre-push --file "$0" "$@"
"""
)

# A program that takes the place of ours may keep ours under another name and run it: what it replaced before is not to
# be run once more from there.
_RUN_BEFORE = """folder=${0%/*}
if [ "$GIT_THETA_BEFORE" != NAME ] || [ "${0##*/}" = NAME ]; then
    for before in "$folder/NAME.before-theta" "$folder/NAME.before-theta"-[2-9]; do
        if [ -f "$before" ] && [ -x "$before" ]; then
            GIT_THETA_BEFORE=NAME "$before" "$@" || exit
        fi
    done
fi
"""

# Each hook gets all of the input, to the last line break, which '$(...)' alone would take away.
_RUN_BEFORE_WITH_INPUT = """input=$(cat; echo x)
input=${input%x}
""" + _RUN_BEFORE.replace("GIT_THETA_BEFORE=NAME", 'printf %s "$input" 2>/dev/null | GIT_THETA_BEFORE=NAME')

# Python is started only where the filter left something to complete: these hooks run with every commit. For the one
# that 'git worktree add' runs, '.git' is a file.
_COMPLETE = """dir=${GIT_DIR:-.git}
if [ -f "$dir" ]; then dir=$(git rev-parse --git-dir); fi
if [ -f "$dir/theta-pending" ] && command -v git-theta >/dev/null 2>&1; then
    git-theta hook NAME "$@"
fi
exit 0
"""

# It changes what is committed, so where it cannot run the commit goes on as it is: the next one makes up for it.
_POINTERS = (
    _HEAD
    + _RUN_BEFORE
    + """if command -v git-theta >/dev/null 2>&1; then git-theta hook NAME "$@"; fi
exit 0
"""
)

# Python is started only where a merge is committed: this hook runs with every commit.
_TRAILERS = (
    _HEAD
    + _RUN_BEFORE
    + """dir=${GIT_DIR:-.git}
if [ -f "$dir" ]; then dir=$(git rev-parse --git-dir); fi
if { [ -f "$dir/MERGE_HEAD" ] || [ -f "$dir/SQUASH_MSG" ]; } && command -v git-theta >/dev/null 2>&1; then
    git-theta hook NAME "$@"
fi
exit 0
"""
)

POINTER_HOOKS = ("pre-commit",)
"""Hooks that keep pointer files in step, installed only where there are any.

``pre-merge-commit`` is none of them: git has written the tree of the merge before it runs that.
"""

HOOKS = {
    "pre-push": _PRE_PUSH,
    **{
        name: (_HEAD + _RUN_BEFORE + _COMPLETE).replace("NAME", name)
        for name in ("post-checkout", "post-merge", "post-commit")
    },
    "post-rewrite": (_HEAD + _RUN_BEFORE_WITH_INPUT + _COMPLETE).replace("NAME", "post-rewrite"),
    "prepare-commit-msg": _TRAILERS.replace("NAME", "prepare-commit-msg"),
    **{name: _POINTERS.replace("NAME", name) for name in POINTER_HOOKS},
}
"""Content of each hook file.

``post-commit`` is what runs at the end of a cherry-pick or revert, ``post-rewrite`` at that of a rebase.
"""
