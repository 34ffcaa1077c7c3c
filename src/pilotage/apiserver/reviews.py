"""Questions in the form of objects: who am I, may I, is this token good, give me one.

Stands apart because these resources are only asked, never stored. Each answer is the body with its status filled in.
Source: Kubernetes API reference, authentication.k8s.io and authorization.k8s.io.
"""

from __future__ import annotations

from aiohttp import web

from pilotage.api.catalogue import Resource
from pilotage.apiserver import body, responses
from pilotage.apiserver.authentication import Authenticator, ServiceAccountTokens
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.authorization.reviews import review_access, review_rules, review_self
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.bodies import TOKEN_REQUEST
from pilotage.apiserver.core.options import write_options
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry


class Reviews:
    """Handlers of one server's questions."""

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticator,
        authorizer: Authorizer,
        tokens: ServiceAccountTokens,
    ) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._tokens = tokens

    async def token(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `serviceaccounts/<name>/token`."""
        account = self._registry.get(call).document
        asked = await self._body(request, call, TOKEN_REQUEST)
        return responses.document(self._tokens.request(account, asked, call.now), status=201)

    async def token_review(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `tokenreviews`."""
        asked = await self._body(request, call, call.resource)
        return responses.document(self._authenticator.review(asked, call.now), status=201)

    async def self_review(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `selfsubjectreviews`: who the server takes the client for."""
        await self._body(request, call, call.resource)
        return responses.document(review_self(call.user), status=201)

    async def access_review(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `selfsubjectaccessreviews`, `subjectaccessreviews` and `localsubjectaccessreviews`."""
        asked = await self._body(request, call, call.resource)
        answer = review_access(self._authorizer, call.user, call.resource.kind, asked)
        return responses.document(answer, status=201)

    async def rules_review(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `selfsubjectrulesreviews`."""
        asked = await self._body(request, call, call.resource)
        return responses.document(review_rules(self._authorizer, call.user, asked), status=201)

    async def _body(self, request: web.BaseRequest, call: Call, resource: Resource) -> Document:
        asked = Call(
            resource=resource,
            namespace=call.namespace,
            name="",
            subresource="",
            user=call.user,
            now=call.now,
            options=write_options(request.query),
        )
        return self._registry.pipeline.decode_body(asked, await body.read(request), body.type_of(request))
