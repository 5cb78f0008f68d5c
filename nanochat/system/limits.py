"""The old place of system/variables.py's `check`."""

from nanochat.system.variables import check

__all__ = ["check"]
