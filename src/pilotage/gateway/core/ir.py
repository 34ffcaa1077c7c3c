"""The intermediate representation: what the gateway shall do, in neither the user's words nor Envoy's.

Stands apart so that each half changes alone: front ends (`ingress`, Gateway API to come) produce it, `translate` turns
it into xDS, `matcher` answers from it in memory. It holds no reference to an API object; what went wrong on the way
here is a `Problem` of the front end. Leaves out precedence: routes stand in the order in which they are tried.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

ANY_HOST = ""  # the virtual host for requests that no other one takes


class PathKind(Enum):
    """How a path is compared; paths are compared case-sensitively, without the query."""

    EXACT = "Exact"
    PREFIX = "Prefix"  # whole elements: /a matches /a, /a/ and /a/b, not /ab


class Protocol(Enum):
    """What the endpoints of a cluster speak."""

    HTTP1 = "http/1.1"
    H2C = "h2c"  # HTTP/2 in clear text, known beforehand: every request is balanced on its own


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Endpoint:
    """One address that takes connections now."""

    address: str
    port: int
    zone: str = ""  # empty when unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A set of equal endpoints; Envoy's word, which here never means a Kubernetes cluster."""

    name: str  # unique: "<namespace>/<service>/<port>"
    protocol: Protocol
    endpoints: tuple[Endpoint, ...]  # sorted, unique; empty: requests are answered 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request to a cluster."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer without asking anybody."""

    status: int
    reason: str  # one line for the client


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectToHttps:
    """Answer 308, keeping host, path and query."""

    port: int  # the port by which clients reach the HTTPS listener


Action: TypeAlias = Forward | Respond | RedirectToHttps


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests of a virtual host a route takes; all given conditions must hold."""

    path: str
    kind: PathKind
    one_label_under: str = ""  # "example.com": only a host of exactly one more label; empty: any host


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The first route of a virtual host whose `match` holds decides."""

    name: str  # for logs: the object it comes from, "namespace/name"
    match: Match
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """Requests for one host name."""

    host: str  # lower-case; "*.example.com" takes any number of labels, the longest suffix wins; or ANY_HOST
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A chain and its key, known to belong together."""

    name: str  # "<namespace>/<secret>"
    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Certificate({self.name})"  # the key never reaches a log


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsServer:
    """Which certificate answers which server names (SNI)."""

    server_names: tuple[str, ...]  # sorted, each in at most one TlsServer of a listener; empty: all others
    certificate: str  # a Certificate's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What takes connections."""

    name: str
    addresses: tuple[tuple[str, int], ...]  # with their ports; at least one
    tls: tuple[TlsServer, ...]  # empty: clear text
    virtual_hosts: tuple[VirtualHost, ...]  # sorted by host


@dataclass(frozen=True, slots=True, kw_only=True)
class Ir:
    """Everything one gateway does. Every name that is referred to exists; nothing is there that is not referred to."""

    listeners: tuple[Listener, ...]
    clusters: tuple[Cluster, ...]  # sorted by name
    certificates: tuple[Certificate, ...]  # sorted by name
