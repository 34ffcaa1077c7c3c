"""Split horizon: some clients, by address or namespace, get a chain of their own for some names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pilotage.dns.chain import Handler, Request, Step, link
from pilotage.dns.chain.clients import ClientSet
from pilotage.dns.core.askers import Askers
from pilotage.dns.core.name import Name, is_within
from pilotage.dns.core.upstream import Reply
from pilotage.dns.core.wire import Query


class View(Step):
    """The inner steps, then the outer chain. Configured by `build`, because a view holds other steps."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        clients: ClientSet,
        namespaces: frozenset[str],
        names: tuple[Name, ...],
        askers: Askers,
    ) -> None:
        self.steps = tuple(steps)
        self._clients = clients
        self._namespaces = namespaces
        self._names = names
        """Zones that the view is about; empty: every name, which costs every client the compiled answers."""
        self._askers = askers

    def claims(self, query: Query) -> bool:
        return not self._names or any(is_within(query.name, zone) for zone in self._names)

    def applies(self, client: str) -> bool:
        return client in self._clients or (
            bool(self._namespaces) and self._askers.namespace_of(client) in self._namespaces
        )

    async def resolve(self, request: Request, following: Handler) -> Reply:
        if not self.claims(request.query):
            return await following(request)
        handler = link(self.steps, following) if self.applies(request.client) else following
        return replace(await handler(request), private=True)  # what one client heard is not for another
