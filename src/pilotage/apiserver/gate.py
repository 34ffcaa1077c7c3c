"""Who is asking, and may they: the two questions before any work.

Stands apart as the seam between the HTTP connection (peer certificate, Authorization header) and the authenticator and
authoriser, which see neither. Called once per request by the front.
"""

from __future__ import annotations

from datetime import datetime

from aiohttp import web

from pilotage.apiserver.authentication import Authenticator, UserInfo, impersonate
from pilotage.apiserver.authorization import Authorizer


class Gate:
    """Authentication and authorisation of one server."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self.authorize = authorizer.authorize

    def authenticate(self, request: web.BaseRequest, now: datetime) -> UserInfo:
        """The user the request acts as. Raises ApiError Unauthorized, or Forbidden for impersonation."""
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        user = self._authenticator.authenticate(certificate, request.headers.get("Authorization"), now)
        return impersonate(user, request.headers.items(), self.authorize)
