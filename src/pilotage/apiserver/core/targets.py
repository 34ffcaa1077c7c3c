"""Where a proxied request goes, and what of it goes there: the pure half of the proxy subresources.

Stands apart because it decides what the server, which reaches every pod and node, may be made to connect to. A name is
`[scheme:]name[:port]`; a service's target is one of its ready endpoints that really are pods. Source: kube-apiserver's
registries of pods, services and nodes (`ResourceLocation`), its upgrade-aware proxy handler, RFC 9110 §7.6.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from pilotage.api.status import ApiError
from pilotage.apiserver.core.record import Document

_SCHEMES = ("", "http", "https")
# For this hop only, or put there anew for the next.
_HOP_BY_HOP = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "expect",
    )
)  # fmt: skip
# Who the client is to this server is not for whoever it talks to: a pod that saw a token could act as its owner.
_SECRET_PREFIXES = ("impersonate-", "x-remote-", "x-forwarded-")
_SECRET = frozenset(("authorization",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A name of the URL, taken apart."""

    scheme: str  # "", http or https
    name: str
    port: str  # a number, the name of a port, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to connect to."""

    scheme: str
    host: str  # an IP address
    port: int

    @property
    def authority(self) -> str:
        """As in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split_name(kind: str, text: str) -> Named:
    """`[scheme:]name[:port]`. Raises ApiError BadRequest."""
    parts = text.split(":")
    if len(parts) == 1:
        return Named(scheme="", name=text, port="")
    named = (
        Named(scheme="", name=parts[0], port=parts[1])
        if len(parts) == 2
        else Named(scheme=parts[0], name=parts[1], port=":".join(parts[2:]))
    )
    if named.scheme not in _SCHEMES or not named.name or len(parts) > 3:
        raise ApiError("BadRequest", f'invalid {kind} request "{text[:200]}"')
    return named


def is_proxyable(address: str) -> bool:
    """Whether clients may be led there: never to the server's own machine or its link."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return not (mapped.is_loopback or mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified)


def pod_target(pod: Document, named: Named) -> Target:
    """A port of a pod; without a port, the first its containers declare. Raises ApiError."""
    port = named.port
    if not port:
        containers = (pod.get("spec") or {}).get("containers") or ()
        declared = (item["ports"][0]["containerPort"] for item in containers if item.get("ports"))
        port = str(next(declared, ""))
    host = (pod.get("status") or {}).get("podIP") or ""
    if not host or not is_proxyable(host):
        raise ApiError("BadRequest", "address not allowed")
    scheme = named.scheme or "http"
    return Target(scheme=scheme, host=host, port=_number(port or ("443" if scheme == "https" else "80"), named))


def node_target(address: str, agent_port: int, named: Named) -> tuple[Target, bool]:
    """A port of a node, and whether that is its agent. Raises ApiError."""
    if not is_proxyable(address):
        raise ApiError("BadRequest", "address not allowed")
    port = _number(named.port, named) if named.port else agent_port
    is_agent = port == agent_port
    return Target(scheme="https" if is_agent else named.scheme or "http", host=address, port=port), is_agent


def service_targets(
    service: Document, slices: Iterable[Document], pods: Mapping[str, Document], named: Named
) -> Sequence[Target]:
    """Every ready endpoint behind a port of a service, in the order of the slices. `pods` are by name.

    An endpoint counts only if the pod it names has the address: else whoever may write slices could point the server
    anywhere. Raises ApiError ServiceUnavailable when there is none.
    """
    port = named.port
    if port.isdigit():
        ports = (service.get("spec") or {}).get("ports") or ()
        found = next((item.get("name", "") for item in ports if item.get("port") == int(port)), None)
        if found is None:
            raise ApiError("ServiceUnavailable", f'no service port {port[:10]} found for service "{named.name}"')
        port = found
    targets = [
        Target(scheme=named.scheme or "http", host=address, port=number)
        for each in slices
        for number in _ports(each, port)
        for address in _addresses(each, pods)
    ]
    if not targets:
        raise ApiError("ServiceUnavailable", f'no endpoints available for service "{named.name}"')
    return targets


def _ports(endpoint_slice: Document, name: str) -> Iterator[int]:
    for item in endpoint_slice.get("ports") or ():
        if (item.get("name") or "") == name and item.get("port") and item.get("protocol", "TCP") == "TCP":
            yield item["port"]


def _addresses(endpoint_slice: Document, pods: Mapping[str, Document]) -> Iterator[str]:
    for endpoint in endpoint_slice.get("endpoints") or ():
        reference = endpoint.get("targetRef") or {}
        pod = pods.get(reference.get("name", "")) if reference.get("kind") == "Pod" else None
        if pod is None or (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        owned = {item.get("ip") for item in (pod.get("status") or {}).get("podIPs") or ()}
        yield from (
            address for address in endpoint.get("addresses") or () if address in owned and is_proxyable(address)
        )


def _number(port: str, named: Named) -> int:
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ApiError("BadRequest", f'invalid port "{port[:40]}" for "{named.name}"')
    return int(port)


def forwarded_headers(
    headers: Iterable[tuple[str, str]], *, host: str, prefix: str, client: str
) -> list[tuple[str, str]]:
    """What of a request's headers goes on, and who it came from. `prefix` is the path up to and with `proxy`."""
    pairs = tuple(headers)
    named = {item.strip().lower() for key, value in pairs if key.lower() == "connection" for item in value.split(",")}
    dropped = _HOP_BY_HOP | _SECRET | named
    kept = [
        (key, value)
        for key, value in pairs
        if key.lower() not in dropped and not key.lower().startswith(_SECRET_PREFIXES)
    ]
    return [
        *kept,
        ("X-Forwarded-For", client),
        ("X-Forwarded-Host", host),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Uri", prefix),
    ]


def returned_headers(headers: Iterable[tuple[str, str]], *, target: Target, prefix: str) -> list[tuple[str, str]]:
    """What of an answer's headers goes back. A redirect within the target stays within the proxy.

    Cross-origin leave is the server's to give, not the target's, as in kube-apiserver.
    """
    pairs = tuple(headers)
    named = {item.strip().lower() for key, value in pairs if key.lower() == "connection" for item in value.split(",")}
    kept = []
    for key, value in pairs:
        lower = key.lower()
        if lower in _HOP_BY_HOP or lower in named or lower.startswith("access-control-"):
            continue
        kept.append((key, relocated(value, target, prefix) if lower == "location" else value))
    return kept


def relocated(location: str, target: Target, prefix: str) -> str:
    """A Location as the client must see it."""
    parts = urlsplit(location)
    if parts.netloc and parts.netloc not in (target.authority, target.host):
        return location
    if not parts.netloc and not parts.path.startswith("/"):
        return location  # relative to where the client is, which is inside the proxy already
    path = parts.path or "/"
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{quote(prefix, safe='/:%')}{path}{query}{fragment}"


def parse_response_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of an HTTP/1.1 answer (RFC 9112 §4, §5). Raises ValueError."""
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = rest[:3]
    if not version.startswith("HTTP/1.") or not code.isdigit():
        raise ValueError("not an HTTP/1 answer")
    headers = []
    for line in lines[1:]:
        if line:
            key, colon, value = line.partition(":")
            if not colon or not key or key != key.strip():
                raise ValueError("a malformed header")
            headers.append((key, value.strip()))
    return int(code), headers
