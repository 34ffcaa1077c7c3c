"""Answers from the IR in memory what the gateway would do with a request.

Stands apart from `translate`, which says the same to Envoy: tests send requests through both halves' common middle, and
introspection can explain a request without a proxy. Cost: linear in the routes of one virtual host.
"""

from pilotage.gateway.core.ir import ANY_HOST, Listener, Match, PathKind, Route, TlsServer, VirtualHost


def find_route(listener: Listener, host: str, path: str) -> Route | None:
    """The route that decides a request for `host` (a port is ignored) and `path` (without query); None means 404."""
    name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
    name = name.lower().removesuffix(".")
    virtual_host = find_virtual_host(listener, name)
    if virtual_host is None:
        return None
    return next((route for route in virtual_host.routes if matches(route.match, name, path)), None)


def find_virtual_host(listener: Listener, name: str) -> VirtualHost | None:
    """The exact host, else the longest wildcard, else the one for any host."""
    by_host = {virtual_host.host: virtual_host for virtual_host in listener.virtual_hosts}
    labels = name.split(".")
    candidates = [name, *("*." + ".".join(labels[start:]) for start in range(1, len(labels))), ANY_HOST]
    return next((by_host[candidate] for candidate in candidates if candidate in by_host), None)


def find_certificate(listener: Listener, server_name: str) -> str | None:
    """The certificate for an SNI name (empty: none sent); None means that the handshake fails."""

    def rank(server: TlsServer) -> int:
        """The length of the best name that matches, 0 for the fallback, -1 for no match."""
        if not server.server_names:
            return 0
        matching = [
            len(name) + (not name.startswith("*."))
            for name in server.server_names
            if name == server_name or (name.startswith("*.") and server_name.endswith(name[1:]))
        ]
        return max(matching, default=-1)

    best = max(listener.tls, key=rank, default=None)
    return best.certificate if best is not None and rank(best) >= 0 else None


def matches(match: Match, name: str, path: str) -> bool:
    """Whether one route takes a request; `name` is the lower-case host without port."""
    if match.one_label_under and name.partition(".")[2] != match.one_label_under:
        return False
    if match.kind is PathKind.EXACT:
        return path == match.path
    prefix = match.path.rstrip("/")
    return path == prefix or path.startswith(prefix + "/")
