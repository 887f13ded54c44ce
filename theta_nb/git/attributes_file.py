"""One ``.gitattributes`` file: its rules are read and edited, every other byte of it stays as it is."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass

from theta_nb.errors import ThetaError

__all__ = ["ATTRIBUTES", "AttributesFile", "Rule", "quote_pattern"]

ATTRIBUTES = ("filter=theta", "merge=theta", "diff=theta", "-text")
"""What a tracked pattern gets; without ``-text`` line-end conversion reaches the manifest."""

_BLANKS = " \t\r\n"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_LETTERS = {character: letter for letter, character in _ESCAPES.items()}
_QUOTED = re.compile(r'"((?:[^"\\]|\\[abfnrtv\\"]|\\[0-3][0-7]{2})*)"')
_ESCAPE = re.compile(rb"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)
_NEEDS_QUOTES = re.compile(r'[\x00-\x20\x7f]|^"|^#')
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True, slots=True)
class Rule:
    """One line that gives attributes to the paths of a pattern.

    Parameters
    ----------
    number
        Line number, from 1.
    pattern
        The pattern, without quotes.
    attributes
        Its attributes as they are spelled (``"filter=theta"``, ``"-text"``).
    """

    number: int
    pattern: str
    attributes: tuple[str, ...]

    @property
    def filter(self) -> str | None:
        """Name of the filter that this line sets, ``""`` where it sets none, ``None`` where it does not say."""
        found = None
        for attribute in self.attributes:
            name, _, value = attribute.lstrip("-!").partition("=")
            if name == "filter":
                found = value if attribute[0] not in "-!" else ""
        return found

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of our attributes about which this line says nothing."""
        said = {attribute.lstrip("-!").partition("=")[0] for attribute in self.attributes}
        if "binary" in said:
            said |= {"diff", "merge", "text"}
        return tuple(a for a in ATTRIBUTES if a.lstrip("-").partition("=")[0] not in said)


def quote_pattern(pattern: str) -> str:
    r"""Spelling of a pattern in the file; one with blanks needs quotes.

    Examples
    --------
    >>> print(quote_pattern("my models/*.pt"), quote_pattern("*.pt"))
    "my models/*.pt" *.pt
    """
    if not _NEEDS_QUOTES.search(pattern):
        return pattern

    def escape(match: re.Match[str]) -> str:
        letter = _LETTERS.get(match[0])
        return f"\\{letter}" if letter else f"\\{ord(match[0]):03o}"

    return '"' + _UNSAFE.sub(escape, pattern) + '"'


def parse_rule(line: str, number: int) -> Rule | None:
    r"""The rule of a line, or ``None`` for a blank line, a comment or the definition of a macro.

    Examples
    --------
    >>> parse_rule('"a b.pt"  filter=theta -text', 7)
    Rule(number=7, pattern='a b.pt', attributes=('filter=theta', '-text'))
    """
    text = line.strip(_BLANKS)
    if not text or text.startswith("#"):
        return None
    quoted = _QUOTED.match(text)
    if quoted:
        pattern, rest = os.fsdecode(_ESCAPE.sub(_unescape, os.fsencode(quoted[1]))), text[quoted.end() :]
    else:
        pattern, *others = re.split(r"[ \t\r\n]+", text, maxsplit=1)
        rest = "".join(others)
    if pattern.startswith("[attr]"):
        return None
    return Rule(number, pattern, tuple(rest.split()))


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)]) if match[1] else _ESCAPES[match[2].decode()].encode()


class AttributesFile:
    r"""Lines of a ``.gitattributes`` file.

    Parameters
    ----------
    path
        Absolute path.
    data
        Its content; :meth:`read` takes it from the disk.

    Examples
    --------
    >>> file = AttributesFile(".gitattributes", b"# models\n*.bin filter=lfs\n")
    >>> file.track("*.pt")
    'added'
    >>> print(file.data.decode(), end="")
    # models
    *.bin filter=lfs
    *.pt filter=theta merge=theta diff=theta -text
    """

    def __init__(self, path: str, data: bytes = b"") -> None:
        self.path = path
        self._lines = _split(os.fsdecode(data))

    @classmethod
    def read(cls, path: str) -> AttributesFile:
        """The file at ``path``, empty where there is none.

        Raises
        ------
        ThetaError
            If it is a symbolic link, which git does not follow, or cannot be read.
        """
        if os.path.islink(path):
            raise ThetaError(f"{path} is a symbolic link, which git ignores", hint="Replace it by a file.")
        try:
            with open(path, "rb") as file:
                return cls(path, file.read())
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise ThetaError(f"{path} cannot be read: {error.strerror}") from error

    @property
    def data(self) -> bytes:
        """The content as it is to be written."""
        return os.fsencode("".join(self._lines))

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order of the file; later ones win."""
        found = []
        for number, line in enumerate(self._lines, start=1):
            rule = parse_rule(line.removeprefix("\ufeff") if number == 1 else line, number)
            if rule is not None:
                found.append(rule)
        return found

    @property
    def macros(self) -> dict[str, str]:
        """Macro attributes defined here that set a filter, with the filter's name."""
        found = {}
        for line in self._lines:
            words = line.strip(_BLANKS).split()
            if words and words[0].startswith("[attr]"):
                name = Rule(0, "", tuple(words[1:])).filter
                if name is not None:
                    found[words[0].removeprefix("[attr]")] = name
        return found

    def rule_of(self, pattern: str) -> Rule | None:
        """The last rule with exactly this pattern that says something about filters."""
        rules = [rule for rule in self.rules if rule.pattern == pattern and rule.filter is not None]
        return rules[-1] if rules else None

    def track(self, pattern: str, *more: str) -> str:
        """Give a pattern our attributes.

        Parameters
        ----------
        pattern
            As git understands it.
        more
            Further attributes for its line.

        Returns
        -------
        str
            ``"added"`` for a new line, ``"upgraded"`` where the pattern had a line of ours (or of git-theta) that
            lacked an attribute, ``"unchanged"``.
        """
        rule = self.rule_of(pattern)
        if rule is None or rule.filter != "theta":
            self._append(" ".join([quote_pattern(pattern), *ATTRIBUTES, *more]))
            return "added"
        missing = [*rule.missing, *(attribute for attribute in more if attribute not in rule.attributes)]
        if not missing:
            return "unchanged"
        body, ending = _ending(self._lines[rule.number - 1])
        self._lines[rule.number - 1] = " ".join([body.rstrip(_BLANKS), *missing]) + ending
        return "upgraded"

    def put_last(self, pattern: str, attributes: tuple[str, ...]) -> bool:
        """Have a rule with just these attributes win over the others of the file; returns whether it had to move."""
        same = [rule for rule in self.rules if (rule.pattern, rule.attributes) == (pattern, attributes)]
        if same and self.rules[-1] == same[-1]:
            return False
        for rule in reversed(same):
            del self._lines[rule.number - 1]
        self._append(" ".join([quote_pattern(pattern), *attributes]))
        return True

    def untrack(self, pattern: str) -> bool:
        """Take our attributes away from a pattern; what else its line says stays.

        Returns
        -------
        bool
            Whether the pattern was tracked here.
        """
        ours = [rule for rule in self.rules if rule.pattern == pattern and rule.filter == "theta"]
        for rule in reversed(ours):
            rest = [attribute for attribute in rule.attributes if attribute not in (*ATTRIBUTES, "theta-pointers")]
            if rest:
                ending = _ending(self._lines[rule.number - 1])[1]
                self._lines[rule.number - 1] = " ".join([quote_pattern(pattern), *rest]) + ending
            else:
                del self._lines[rule.number - 1]
        return bool(ours)

    def _append(self, line: str) -> None:
        ending = "\r\n" if self._lines and self._lines[0].endswith("\r\n") else "\n"
        if self._lines and not self._lines[-1].endswith("\n"):
            self._lines[-1] += ending
        self._lines.append(line + ending)

    def write(self) -> None:
        """Replace the file atomically; its permissions stay.

        Raises
        ------
        ThetaError
            If it cannot be written; the old file is still there.
        """
        temporary = f"{self.path}.{secrets.token_hex(4)}.tmp"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                with open(fd, "wb") as file:
                    file.write(self.data)
                    with contextlib.suppress(FileNotFoundError):
                        os.fchmod(fd, os.stat(self.path).st_mode & 0o7777)
                    file.flush()
                    os.fsync(fd)
                os.rename(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise ThetaError(f"{self.path} cannot be written: {error.strerror}") from error


def _split(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends a line, as for git."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ending(line: str) -> tuple[str, str]:
    body = line.rstrip("\r\n")
    return body, line[len(body) :]
