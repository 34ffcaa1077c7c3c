"""The root of every error this project raises on purpose.

It stands in `kit` because every package may import kit. A class exists only where somebody catches it:

    PilotageError           anything we can explain to the user in one line
    └─ UsageError           the request itself is wrong: the user must change it (exit code 2)
    InvariantError          a promise of our own was broken: a defect, never caught, ends the process
"""


class PilotageError(Exception):
    """Something went wrong that the user can be told in one line, ideally with what to do about it."""


class UsageError(PilotageError):
    """The command line or a file given by the user cannot be carried out as written."""


class InvariantError(AssertionError):
    """A promise of our own code does not hold; not a `PilotageError`, so nobody handles it by accident."""
