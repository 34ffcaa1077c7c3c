"""What a caller of the API may have to catch.

PilotageError
├─ api.status.ApiError     the server answered with a Status; `.reason` and `.code` say which
└─ ConnectionFailed        no answer: refused, reset, timed out, TLS; the request may or may not have been done
"""

from pilotage.kit.errors import PilotageError


class ConnectionFailed(PilotageError):
    """The server gave no answer; retry if the request may be repeated."""
