"""Front end for Ingress v1: a snapshot of objects → IR, the Ingresses that are ours, and what is wrong with them.

Stands apart from other front ends, which produce the same IR. Called by the shell with everything its informers hold;
same input, same output, order included. Leaves out Envoy.

Precedence, after the Ingress documentation ("Multiple matches", "Hostname wildcards"): the host first: exact, then
wildcard (which covers one label), then rules without host; within the host the longest path, Exact before Prefix.
Where two Ingresses claim the same host and path, or the same TLS host, the older one has it, the other gets an event.
A request that matches a host but none of its paths goes to the default backend of the oldest Ingress of that host that
has one, else to the oldest default backend of all, else it is answered 404; rules without host are not asked.
`ImplementationSpecific` is Prefix here.

Annotation: `pilotage.dev/ssl-redirect: "true"` answers clear-text requests for hosts in the Ingress's `tls` with 308.
The default is to serve both. The redirect stays even if the certificate is bad: its author wants no clear text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.api.core_v1 import ObjectReference, Secret, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import HTTPIngressPath, Ingress, IngressBackend, IngressClass
from pilotage.gateway.core import ir
from pilotage.gateway.core.backend import BackendError, Backends
from pilotage.gateway.core.certificate import TLS_SECRET_TYPE, BadCertificateError, read_certificate
from pilotage.gateway.core.ingress_class import select_ours
from pilotage.gateway.core.problem import Problem, in_order

SSL_REDIRECT_ANNOTATION = "pilotage.dev/ssl-redirect"


_NO_ROUTE = ir.Route(
    name="none",
    match=ir.Match(path="/", kind=ir.PathKind.PREFIX),
    action=ir.Respond(status=404, reason="no route"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Every object that may matter, in any order; TLS Secrets only."""

    ingresses: tuple[Ingress, ...] = ()
    ingress_classes: tuple[IngressClass, ...] = ()
    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the gateway takes connections."""

    http: tuple[tuple[str, int], ...] = (("0.0.0.0", 80),)  # noqa: S104 - it is there to be reached; (): no clear text
    https: tuple[tuple[str, int], ...] = (("0.0.0.0", 443),)  # noqa: S104 - (): no TLS
    redirect: int = 443  # the port by which clients reach `https`, which may be published elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The whole result."""

    ir: ir.Ir
    ours: tuple[Ingress, ...]  # oldest first
    problems: tuple[Problem, ...]  # sorted, unique


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One path of one Ingress, resolved."""

    route: ir.Route
    redirect: bool  # on the clear-text listener


def translate_ingresses(inputs: Inputs, ports: Ports) -> Translation:
    """Cost: linear in the objects, plus sorting the paths of each host."""
    builder = _Builder(inputs)
    ours = select_ours(inputs.ingresses, inputs.ingress_classes)
    for ingress in ours:
        builder.add(ingress)
    return Translation(ir=builder.build(ports), ours=ours, problems=in_order(builder.problems))


class _Builder:
    """Collects the Ingresses one by one; the first to claim something keeps it."""

    def __init__(self, inputs: Inputs) -> None:
        self.problems: set[Problem] = set()
        self._backends = Backends(inputs.services, inputs.endpoint_slices)
        self._secrets = {
            (item.metadata.namespace, item.metadata.name): item
            for item in inputs.secrets
            if item.type == TLS_SECRET_TYPE
        }
        self._rules: dict[str, dict[tuple[str, ir.PathKind], _Rule]] = {}
        self._defaults: dict[str, _Rule] = {}  # by host; ANY_HOST: the oldest of all
        self._certificates: dict[str, ir.Certificate] = {}
        self._bad_secrets: dict[tuple[str, str], str] = {}
        self._tls_hosts: dict[str, str] = {}  # server name ("" for all others) → certificate name

    # ── one Ingress ─────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, ingress: Ingress) -> None:
        self._add_tls(ingress)
        for rule in ingress.spec.rules:
            host = rule.host.lower()
            paths = self._rules.setdefault(host, {})
            for path in rule.http.paths if rule.http else ():
                self._add_path(ingress, host, paths, path)
        if ingress.spec.default_backend is not None:
            self._add_default(ingress, ingress.spec.default_backend)

    def _add_path(
        self, ingress: Ingress, host: str, paths: dict[tuple[str, ir.PathKind], _Rule], path: HTTPIngressPath
    ) -> None:
        kind = ir.PathKind.EXACT if path.path_type == "Exact" else ir.PathKind.PREFIX
        text = path.path or "/"
        if not text.startswith("/") or "?" in text or "#" in text:
            self._report(ingress, "InvalidPath", f"path {text!r} is not an absolute path without query; it is left out")
            return
        if kind is ir.PathKind.PREFIX:
            text = text.rstrip("/") or "/"
        rule = self._resolve(ingress, host, ir.Match(path=text, kind=kind), path.backend)
        taken = paths.setdefault((text, kind), rule)
        if taken is not rule and taken != rule:
            owner = taken.route.name
            self._report(ingress, "PathConflict", f"{host or '*'}{text} ({kind.value}) is taken by the older {owner}")

    def _add_default(self, ingress: Ingress, backend: IngressBackend) -> None:
        match = ir.Match(path="/", kind=ir.PathKind.PREFIX)
        for host in {rule.host.lower() for rule in ingress.spec.rules} | {ir.ANY_HOST}:
            self._defaults.setdefault(host, self._resolve(ingress, host, match, backend))

    def _resolve(self, ingress: Ingress, host: str, match: ir.Match, backend: IngressBackend) -> _Rule:
        action = self._forward(ingress, backend)
        route = ir.Route(name=ingress.metadata.key, match=match, action=action)
        wants_redirect = ingress.metadata.annotations.get(SSL_REDIRECT_ANNOTATION) == "true"
        return _Rule(route=route, redirect=wants_redirect and _has_tls(ingress, host))

    def _forward(self, ingress: Ingress, backend: IngressBackend) -> ir.Action:
        service = backend.service
        if service is None:
            self._report(ingress, "UnsupportedBackend", "a backend is not a Service; its requests are answered 503")
            return ir.Respond(status=503, reason="backend is not a Service")
        found = self._backends.resolve(
            ingress.metadata.namespace, service.name, service.port.name or service.port.number
        )
        if isinstance(found, BackendError):
            self._report(ingress, found.reason, f"{found.message}; its requests are answered 503")
            return ir.Respond(status=503, reason="backend is not available")
        return ir.Forward(cluster=found.name)

    def _add_tls(self, ingress: Ingress) -> None:
        for entry in ingress.spec.tls:
            if not entry.secret_name:
                continue  # the API allows it: TLS ends by another certificate that covers the host
            certificate = self._certificate(ingress, entry.secret_name)
            if certificate is None:
                continue
            for host in entry.hosts or ("",):
                taken = self._tls_hosts.setdefault(host.lower(), certificate.name)
                if taken != certificate.name:
                    message = f"TLS host {host or '*'} is served with Secret {taken} of an older Ingress"
                    self._report(ingress, "TLSHostConflict", message)

    def _certificate(self, ingress: Ingress, secret_name: str) -> ir.Certificate | None:
        key = (ingress.metadata.namespace, secret_name)
        name = "/".join(key)
        if name not in self._certificates and key not in self._bad_secrets:
            secret = self._secrets.get(key)
            try:
                if secret is None:
                    raise BadCertificateError(f"there is none of type {TLS_SECRET_TYPE}")
                self._certificates[name] = read_certificate(secret)
            except BadCertificateError as error:
                self._bad_secrets[key] = str(error)
        if key in self._bad_secrets:
            reason = "TLSSecretInvalid" if key in self._secrets else "TLSSecretNotFound"
            self._report(ingress, reason, f"Secret {name}: {self._bad_secrets[key]}; its hosts have no TLS")
        return self._certificates.get(name)

    def _report(self, ingress: Ingress, reason: str, message: str) -> None:
        about = ObjectReference(
            api_version=Ingress.api_version,
            kind=Ingress.kind,
            namespace=ingress.metadata.namespace,
            name=ingress.metadata.name,
            uid=ingress.metadata.uid,
        )
        self.problems.add(Problem(about=about, reason=reason, message=message))

    # ── the whole ───────────────────────────────────────────────────────────────────────────────────────────────

    def build(self, ports: Ports) -> ir.Ir:
        listeners = []
        if ports.http:
            hosts = self._virtual_hosts(redirect_port=ports.redirect if ports.https else None)
            listeners.append(ir.Listener(name="http", addresses=ports.http, tls=(), virtual_hosts=hosts))
        tls = self._tls_servers()
        if ports.https and tls:  # without any certificate nothing could be said on that port
            hosts = self._virtual_hosts(redirect_port=None)
            listeners.append(ir.Listener(name="https", addresses=ports.https, tls=tls, virtual_hosts=hosts))
        used = {server.certificate for listener in listeners for server in listener.tls}
        # Only what some route forwards to: a rule that lost its path may have been the only one to name a cluster.
        forwarded = {
            route.action.cluster
            for listener in listeners
            for virtual_host in listener.virtual_hosts
            for route in virtual_host.routes
            if isinstance(route.action, ir.Forward)
        }
        return ir.Ir(
            listeners=tuple(listeners),
            clusters=tuple(cluster for cluster in self._backends.clusters() if cluster.name in forwarded),
            certificates=tuple(self._certificates[name] for name in sorted(used)),
        )

    def _tls_servers(self) -> tuple[ir.TlsServer, ...]:
        names: dict[str, list[str]] = {}
        for host, certificate in sorted(self._tls_hosts.items()):
            if host:
                names.setdefault(certificate, []).append(host)
        servers = [ir.TlsServer(server_names=tuple(hosts), certificate=name) for name, hosts in sorted(names.items())]
        if "" in self._tls_hosts:
            servers.append(ir.TlsServer(server_names=(), certificate=self._tls_hosts[""]))
        return tuple(servers)

    def _virtual_hosts(self, *, redirect_port: int | None) -> tuple[ir.VirtualHost, ...]:
        """`redirect_port` None: nothing is redirected."""
        anywhere = self._routes(ir.ANY_HOST, redirect_port)
        hosts = [ir.VirtualHost(host=ir.ANY_HOST, routes=anywhere)] if anywhere else []
        for host in sorted(self._rules.keys() - {ir.ANY_HOST}):
            routes = self._routes(host, redirect_port)
            if host.startswith("*."):
                # "*.example.com" covers one label; deeper names belong to the rules without host.
                suffix = host.removeprefix("*.")
                routes = (*(_under(route, suffix) for route in (*routes, _NO_ROUTE)), *anywhere)
            hosts.append(ir.VirtualHost(host=host, routes=routes))
        return tuple(hosts)

    def _routes(self, host: str, redirect_port: int | None) -> tuple[ir.Route, ...]:
        rules = _by_precedence(self._rules.get(host, {}))
        default = self._defaults.get(host) or self._defaults.get(ir.ANY_HOST)
        if default is not None:
            rules.append(default)
        return tuple(_on_listener(rule, redirect_port) for rule in rules)


def _by_precedence(paths: Mapping[tuple[str, ir.PathKind], _Rule]) -> list[_Rule]:
    def key(item: tuple[str, ir.PathKind]) -> tuple[int, bool, str]:
        path, kind = item
        return -len(path), kind is not ir.PathKind.EXACT, path

    return [paths[item] for item in sorted(paths, key=key)]


def _on_listener(rule: _Rule, redirect_port: int | None) -> ir.Route:
    if not rule.redirect or redirect_port is None:
        return rule.route
    return ir.Route(name=rule.route.name, match=rule.route.match, action=ir.RedirectToHttps(port=redirect_port))


def _under(route: ir.Route, suffix: str) -> ir.Route:
    match = ir.Match(path=route.match.path, kind=route.match.kind, one_label_under=suffix)
    return ir.Route(name=route.name, match=match, action=route.action)


def _has_tls(ingress: Ingress, host: str) -> bool:
    """Whether the Ingress's `tls` covers `host`; an entry without hosts covers all."""
    names: Iterable[str] = (name.lower() for entry in ingress.spec.tls for name in entry.hosts or ("",))
    return any(name in ("", host, "*." + host.partition(".")[2]) for name in names)
