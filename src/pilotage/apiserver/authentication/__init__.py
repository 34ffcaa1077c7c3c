"""Who is asking.

Purpose: turn what a connection proves (a client certificate, a bearer token) into a user, and issue ServiceAccount
tokens.
Inputs → outputs: certificate bytes and the Authorization header → UserInfo, or 401; a TokenRequest → a signed token.
Invariants: a token dies with the ServiceAccount, Pod or Secret it is bound to; nothing that was presented is ever
logged or quoted in a message; a request without credentials is `system:anonymous`.
Reading order: `user`, `certificate`, `token`, `authenticator`, `impersonation`.
Specifications: https://kubernetes.io/docs/reference/access-authn-authz/authentication/, KEP-1205 (bound tokens),
RFC 7519 (JWT), RFC 7518 section 3.4 (ES256).
"""

from pilotage.apiserver.authentication.authenticator import Authenticator
from pilotage.apiserver.authentication.impersonation import impersonate
from pilotage.apiserver.authentication.token import ServiceAccountTokens
from pilotage.apiserver.authentication.user import ANONYMOUS, LOOPBACK, UserInfo

__all__ = ["ANONYMOUS", "LOOPBACK", "Authenticator", "ServiceAccountTokens", "UserInfo", "impersonate"]
