"""Which parts make a server, and how they hold together.

Stands apart from `server`, which gives them life (files, sockets, tasks): this is a plain expression of constructor
calls and of who answers which special resource, so that a reader finds every connection in one place.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from pilotage.apiserver.admission import AccountSecrets, Admission, QuotaLedger, ServiceAddresses
from pilotage.apiserver.admission.dynamic import GROUP as DYNAMIC_GROUP
from pilotage.apiserver.admission.dynamic import RULES as DYNAMIC_RULES
from pilotage.apiserver.admission.dynamic import DynamicAdmission
from pilotage.apiserver.agents import Agents
from pilotage.apiserver.api_services import API_SERVICES, ApiServices
from pilotage.apiserver.authentication import Authenticator, ServiceAccountTokens
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.cache import Cache
from pilotage.apiserver.certificate_signer import CertificateSigner
from pilotage.apiserver.certificates import Authority
from pilotage.apiserver.custom import DEFINITIONS, Definitions, check_definition
from pilotage.apiserver.documents import CachedDocuments
from pilotage.apiserver.front import ANY_SCALE, Front, Handler
from pilotage.apiserver.gate import Gate
from pilotage.apiserver.pipeline import Pipeline
from pilotage.apiserver.proxy import Proxy
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.reviews import Reviews
from pilotage.apiserver.root import Root
from pilotage.apiserver.service_ranges import ServiceRanges
from pilotage.apiserver.store import ObjectStore
from pilotage.apiserver.streams import Streams
from pilotage.apiserver.subresources import Subresources
from pilotage.kit.clock import Clock
from pilotage.storage import Backend

_SCALED = (
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
)

# Documents that hold schemas and expressions are judged by more than the tables of built-in kinds.
_RULES = {("apiextensions.k8s.io", "CustomResourceDefinition"): check_definition, **DYNAMIC_RULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the server's life needs of the whole."""

    front: Front
    registry: Registry
    streams: Streams
    proxy: Proxy
    quotas: QuotaLedger
    definitions: Definitions
    api_services: ApiServices
    dynamic: DynamicAdmission
    signer: CertificateSigner
    ranges: ServiceRanges


def assemble(
    *,
    backend: Backend,
    cache: Cache,
    authority: Authority,
    signing_key: ec.EllipticCurvePrivateKey,
    agent_tls: Callable[[], ssl.SSLContext],
    service_cidrs: tuple[str, ...],
    node_ports: tuple[int, int],
    address: str,
    clock: Clock,
) -> Parts:
    """Join the parts around a loaded cache."""
    documents = CachedDocuments(cache)
    tokens = ServiceAccountTokens(signing_key, documents)
    authenticator, authorizer = Authenticator(tokens), Authorizer(documents)
    quotas = QuotaLedger(documents, cache.observe)
    addresses = ServiceAddresses(service_cidrs, node_ports, documents)
    secrets = AccountSecrets(tokens=tokens, root_ca=authority.certificate_pem)
    admission = Admission(documents, authorizer, addresses, quotas, secrets)
    cache.observe("rbac.authorization.k8s.io", None, authorizer.observe)
    cache.observe("", "pods", authorizer.observe)
    cache.observe("", "services", admission.observe)
    cache.observe("networking.k8s.io", "servicecidrs", admission.observe)
    resources = Resources()
    dynamic = DynamicAdmission(documents, authorizer, resources.equivalents, resources.by_kind)
    cache.observe(DYNAMIC_GROUP, None, dynamic.observe)
    registry = Registry(ObjectStore(backend, cache), Pipeline(admission, dynamic, _RULES))
    api_services = ApiServices(registry, resources, clock)
    cache.observe(API_SERVICES.group, API_SERVICES.plural, api_services.observe)
    definitions = Definitions(registry, resources, clock, api_services.changed)
    cache.observe(DEFINITIONS.group, DEFINITIONS.plural, definitions.observe)
    definitions.load()
    subresources = Subresources(registry)
    agents = Agents(registry, agent_tls)
    streams, proxy = Streams(registry, agents), Proxy(registry, agents)
    reviews = Reviews(registry, authenticator, authorizer, tokens)
    front = Front(
        gate=Gate(authenticator, authorizer),
        resources=resources,
        registry=registry,
        root=Root(
            resources,
            address,
            {"ping": lambda: None, "storage": lambda: backend.failure},
            tokens.published(address),
        ),
        subresources=_special(subresources, streams, proxy, reviews),
        virtual=_asked(subresources, reviews),
        clock=clock,
    )
    return Parts(
        front=front,
        registry=registry,
        streams=streams,
        proxy=proxy,
        quotas=quotas,
        definitions=definitions,
        api_services=api_services,
        dynamic=dynamic,
        signer=CertificateSigner(registry, authorizer, authority, clock),
        ranges=ServiceRanges(registry, service_cidrs, clock),
    )


def _special(
    subresources: Subresources, streams: Streams, proxy: Proxy, reviews: Reviews
) -> dict[tuple[str, str, str], Handler]:
    """Who answers the subresources that are not plain objects: (group, plural, subresource) → handler."""
    found: dict[tuple[str, str, str], Handler] = {(*kind, "scale"): subresources.scale for kind in _SCALED}
    found[ANY_SCALE] = subresources.scale
    found |= {
        ("", "pods", "binding"): subresources.binding,
        ("", "pods", "eviction"): subresources.eviction,
        ("", "pods", "log"): streams.log,
        ("", "pods", "exec"): streams.exec,
        ("", "pods", "attach"): streams.attach,
        ("", "pods", "portforward"): streams.port_forward,
        ("", "pods", "proxy"): proxy.pod,
        ("", "services", "proxy"): proxy.service,
        ("", "nodes", "proxy"): proxy.node,
        ("", "serviceaccounts", "token"): reviews.token,
    }
    return found


def _asked(subresources: Subresources, reviews: Reviews) -> dict[tuple[str, str], Handler]:
    """Who answers the resources that are only asked: (group, plural) → handler."""
    return {
        ("", "bindings"): subresources.binding,
        ("authentication.k8s.io", "tokenreviews"): reviews.token_review,
        ("authentication.k8s.io", "selfsubjectreviews"): reviews.self_review,
        ("authorization.k8s.io", "selfsubjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "subjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "localsubjectaccessreviews"): reviews.access_review,
        ("authorization.k8s.io", "selfsubjectrulesreviews"): reviews.rules_review,
    }
