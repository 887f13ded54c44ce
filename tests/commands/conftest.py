"""The repository with a history that the tests of git's own commands use."""

from tests.git.conftest import history, new_history

__all__ = ["history", "new_history"]
