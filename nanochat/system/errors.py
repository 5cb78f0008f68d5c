"""The three ways in which a command ends that are not a success and not a bug.

system/cli.py turns each into one line and an exit code; everything else that is raised is a bug
and leaves a traceback in logs/.
"""

from __future__ import annotations


class UserError(Exception):
    """The user's mistake. The text is one line: the value, the rule, the fix. Exit code 2."""


class Failure(Exception):
    """Something failed that is nobody's mistake. One line that says what to do. Exit code 1."""


class Interrupted(Exception):
    """Stopped by a signal after everything was saved. Says how to continue. Exit code 130."""
