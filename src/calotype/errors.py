"""The errors a user meets. Each is one line: what came, what was expected, what to do.

`CalotypeError` ends the command line with exit code 1, `UsageError` with exit code 2.
"""

from __future__ import annotations


class CalotypeError(Exception):
    """Something failed that the user can act on; exit code 1."""


class NotFiniteError(CalotypeError):
    """A network gave NaN or infinities where an image was expected."""


class UsageError(CalotypeError, ValueError):
    """The user's input is wrong; exit code 2."""


class ConfigError(UsageError):
    """A setting of a recipe or a cascade is wrong."""


class MissingExtra(CalotypeError):
    """A package of an optional extra is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        """Name the extra (e.g. `data`) that brings `package`."""
        super().__init__(
            f"this needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'calotype[{extra}]'"
        )
