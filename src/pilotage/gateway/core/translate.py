"""IR → xDS resources: the only place that knows how Envoy spells what the gateway means.

Stands apart from the front ends; called by the shell, which wraps the result in a snapshot. Every choice of number is a
named constant with its reason. Leaves out the bootstrap (`envoy`), which is a file rather than a resource.

What stays the same however routes change: the listeners (their routes come by RDS, their certificates by SDS), so
connections are not drained; and the clusters (their endpoints come by EDS), so churn of Pods is one small message.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import (
    address_pb2,
    base_pb2,
    config_source_pb2,
    protocol_pb2,
    substitution_format_string_pb2,
)
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import any_pb2, duration_pb2, struct_pb2, wrappers_pb2

from pilotage.gateway.core import ir
from pilotage.kit import InvariantError
from pilotage.xds.core.resource import Resource, ResourceType

CONNECT_TIMEOUT_S = 2  # endpoints are in the same network; a lost SYN is resent once within this
# A whole request has no limit, or streams, long polls and WebSockets would be cut; silence has one.
STREAM_IDLE_TIMEOUT_S = 300
CONNECTION_IDLE_TIMEOUT_S = 600  # of a client's connection without requests
UPSTREAM_IDLE_TIMEOUT_S = 55  # below the 60 s after which many servers close: we close first, no request is lost to it
REQUEST_HEADERS_TIMEOUT_S = 10  # a client that trickles its headers holds memory
TLS_HANDSHAKE_TIMEOUT_S = 10
DRAIN_TIMEOUT_S = 5  # how long an HTTP/2 client may finish after GOAWAY
BUFFER_BYTES = 64 * 1024  # per connection and direction: enough for a LAN's round trip, bounded for 10,000 connections
HTTP2_STREAMS_MAX = 256  # at once in one client connection; gRPC clients multiplex hard, attackers harder
HTTP2_STREAM_WINDOW_BYTES = 64 * 1024
HTTP2_CONNECTION_WINDOW_BYTES = 1024 * 1024
UPSTREAM_REQUESTS_MAX = 16_384  # at once in one cluster; beyond it 503 rather than a queue without end
RETRIES_AT_ONCE_MAX = 64
RETRIES_PER_REQUEST = 2
# Only what certainly never reached the application is sent again; see the docs of `x-envoy-retry-on`.
RETRY_ON = "connect-failure,refused-stream,reset-before-request"

ACCESS_LOG_FIELDS = {
    "time": "%START_TIME%",
    "listener": "%FILTER_CHAIN_NAME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",  # no query: secrets travel there
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the data plane behaves, beyond what routes say."""

    access_log: str | None = None  # a file, "-" for Envoy's standard output, None for none


def translate(model: ir.Ir, options: Options) -> tuple[Resource, ...]:
    """Every resource of `model`, grouped by type in sending order."""
    return Translator(options).translate(model)


class Translator:
    """`translate` that remembers: a part of the model that equals its predecessor is not built and encoded again.

    Nearly every snapshot differs from the last in the endpoints of one cluster; building costs some twenty times
    comparing. Holds one model's worth of parts.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: dict[tuple[ResourceType, str], tuple[_Part, Resource]] = {}

    def translate(self, model: ir.Ir) -> tuple[Resource, ...]:
        """Equal to `translate(model, options)`, whatever was translated before."""
        known: dict[tuple[ResourceType, str], tuple[_Part, Resource]] = {}
        for type_, part in _parts(model):
            key = (type_, part.name)
            before = self._known.get(key)
            known[key] = before if before is not None and before[0] == part else (part, self._build(type_, part))
        self._known = known
        return tuple(resource for _, resource in known.values())

    def _build(self, type_: ResourceType, part: "_Part") -> Resource:
        message: Any
        match type_, part:
            case ResourceType.CLUSTER, ir.Cluster():
                message = _cluster(part)
            case ResourceType.ENDPOINT, ir.Cluster():
                message = _endpoints(part)
            case ResourceType.LISTENER, ir.Listener():
                message = _listener(part, self._options)
            case ResourceType.SECRET, ir.Certificate():
                message = _secret(part)
            case ResourceType.ROUTE, ir.Listener():
                message = _routes(part)
            case _:
                raise InvariantError(f"no {type_.name} is made from {part}")
        return Resource.of(type_, part.name, message)


_Part: TypeAlias = ir.Cluster | ir.Listener | ir.Certificate


def _parts(model: ir.Ir) -> Iterator[tuple[ResourceType, _Part]]:
    """What each resource is made from."""
    for type_ in ResourceType:
        match type_:
            case ResourceType.CLUSTER | ResourceType.ENDPOINT:
                parts: Sequence[_Part] = model.clusters
            case ResourceType.LISTENER | ResourceType.ROUTE:
                parts = model.listeners
            case ResourceType.SECRET:
                parts = model.certificates
            case _:
                assert_never(type_)
        for part in parts:
            yield type_, part


# ── clusters ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cluster(cluster: ir.Cluster) -> cluster_pb2.Cluster:
    options = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=_seconds(UPSTREAM_IDLE_TIMEOUT_S)),
    )
    match cluster.protocol:
        case ir.Protocol.HTTP1:
            options.explicit_http_config.http_protocol_options.SetInParent()
        case ir.Protocol.H2C:
            http2 = options.explicit_http_config.http2_protocol_options
            http2.initial_stream_window_size.value = HTTP2_CONNECTION_WINDOW_BYTES
            http2.initial_connection_window_size.value = HTTP2_CONNECTION_WINDOW_BYTES
        case _:
            assert_never(cluster.protocol)
    limits = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=_uint32(UPSTREAM_REQUESTS_MAX),
        max_pending_requests=_uint32(UPSTREAM_REQUESTS_MAX),
        max_requests=_uint32(UPSTREAM_REQUESTS_MAX),
        max_retries=_uint32(RETRIES_AT_ONCE_MAX),
    )
    return cluster_pb2.Cluster(
        name=cluster.name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=_ads(), service_name=cluster.name),
        # The less busy of two at random: a slow endpoint gets less, and idle ones share evenly.
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        connect_timeout=_seconds(CONNECT_TIMEOUT_S),
        per_connection_buffer_limit_bytes=_uint32(BUFFER_BYTES),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[limits]),
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _any(options)},
    )


def _endpoints(cluster: ir.Cluster) -> endpoint_pb2.ClusterLoadAssignment:
    by_zone: dict[str, list[ir.Endpoint]] = {}
    for endpoint in cluster.endpoints:
        by_zone.setdefault(endpoint.zone, []).append(endpoint)
    localities = [
        endpoint_components_pb2.LocalityLbEndpoints(
            locality=base_pb2.Locality(zone=zone),
            lb_endpoints=[
                endpoint_components_pb2.LbEndpoint(
                    endpoint=endpoint_components_pb2.Endpoint(address=_address(endpoint.address, endpoint.port))
                )
                for endpoint in endpoints
            ],
        )
        for zone, endpoints in sorted(by_zone.items())
    ]
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster.name, endpoints=localities)


# ── listeners and certificates ──────────────────────────────────────────────────────────────────────────────────────


def _listener(listener: ir.Listener, options: Options) -> listener_pb2.Listener:
    manager = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=_any(_connection_manager(listener, options)),
    )
    first, *further = (_address(*each) for each in listener.addresses)
    result = listener_pb2.Listener(
        name=listener.name,
        address=first,
        additional_addresses=[listener_pb2.AdditionalAddress(address=each) for each in further],
        per_connection_buffer_limit_bytes=_uint32(BUFFER_BYTES),
        # One worker could end up with every long-lived HTTP/2 connection; this spreads them.
        connection_balance_config=listener_pb2.Listener.ConnectionBalanceConfig(
            exact_balance=listener_pb2.Listener.ConnectionBalanceConfig.ExactBalance()
        ),
    )
    if not listener.tls:
        result.filter_chains.add(name=listener.name, filters=[manager])
        return result
    result.listener_filters.add(
        name="envoy.filters.listener.tls_inspector", typed_config=_any(tls_inspector_pb2.TlsInspector())
    )
    for server in listener.tls:
        result.filter_chains.add(
            name=f"{listener.name}/{server.certificate}" + ("" if server.server_names else "/default"),
            filter_chain_match=listener_components_pb2.FilterChainMatch(server_names=server.server_names),
            filters=[manager],
            transport_socket=base_pb2.TransportSocket(
                name="envoy.transport_sockets.tls", typed_config=_any(_tls_context(server))
            ),
            transport_socket_connect_timeout=_seconds(TLS_HANDSHAKE_TIMEOUT_S),
        )
    return result


def _tls_context(server: ir.TlsServer) -> tls_pb2.DownstreamTlsContext:
    return tls_pb2.DownstreamTlsContext(
        common_tls_context=tls_pb2.CommonTlsContext(
            alpn_protocols=["h2", "http/1.1"],
            tls_params=common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2),
            tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name=server.certificate, sds_config=_ads())],
        )
    )


def _secret(certificate: ir.Certificate) -> secret_pb2.Secret:
    return secret_pb2.Secret(
        name=certificate.name,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=certificate.chain_pem),
            private_key=base_pb2.DataSource(inline_bytes=certificate.key_pem),
        ),
    )


def _connection_manager(listener: ir.Listener, options: Options) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = http_connection_manager_pb2.HttpConnectionManager
    return manager(
        stat_prefix=listener.name,
        rds=http_connection_manager_pb2.Rds(config_source=_ads(), route_config_name=listener.name),
        http_filters=[
            http_connection_manager_pb2.HttpFilter(
                name="envoy.filters.http.router", typed_config=_any(router_pb2.Router(suppress_envoy_headers=True))
            )
        ],
        # We are the edge: the peer's address is appended to X-Forwarded-For, X-Forwarded-Proto is ours.
        use_remote_address=wrappers_pb2.BoolValue(value=True),
        server_header_transformation=manager.PASS_THROUGH,
        # /a/../b must not pass as a path under /a
        normalize_path=wrappers_pb2.BoolValue(value=True),
        strip_trailing_host_dot=True,
        upgrade_configs=[manager.UpgradeConfig(upgrade_type="websocket")],
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=_seconds(CONNECTION_IDLE_TIMEOUT_S)),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            max_concurrent_streams=_uint32(HTTP2_STREAMS_MAX),
            initial_stream_window_size=_uint32(HTTP2_STREAM_WINDOW_BYTES),
            initial_connection_window_size=_uint32(HTTP2_CONNECTION_WINDOW_BYTES),
        ),
        stream_idle_timeout=_seconds(STREAM_IDLE_TIMEOUT_S),
        request_headers_timeout=_seconds(REQUEST_HEADERS_TIMEOUT_S),
        drain_timeout=_seconds(DRAIN_TIMEOUT_S),
        access_log=_access_log(options.access_log),
    )


def _access_log(target: str | None) -> list[accesslog_pb2.AccessLog]:
    if target is None:
        return []
    fields = struct_pb2.Struct()
    fields.update(ACCESS_LOG_FIELDS)
    log_format = substitution_format_string_pb2.SubstitutionFormatString(json_format=fields)
    if target == "-":
        config: Any = stream_pb2.StdoutAccessLog(log_format=log_format)
        return [accesslog_pb2.AccessLog(name="envoy.access_loggers.stdout", typed_config=_any(config))]
    config = file_pb2.FileAccessLog(path=target, log_format=log_format)
    return [accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=_any(config))]


# ── routes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _routes(listener: ir.Listener) -> route_pb2.RouteConfiguration:
    return route_pb2.RouteConfiguration(
        name=listener.name,
        virtual_hosts=[
            route_components_pb2.VirtualHost(
                name=virtual_host.host or "*",
                domains=[virtual_host.host or "*"],
                routes=[_route(route) for route in virtual_host.routes],
            )
            for virtual_host in listener.virtual_hosts
        ],
        # No X-Forwarded-Port: the port that the client used is in Host, ours may be published elsewhere.
        request_headers_to_add=[_header("x-forwarded-host", "%REQ(:AUTHORITY)%")],
        ignore_port_in_host_matching=True,
        # A cluster may be refused while the rest of the table is good: its requests get 503, the others their answer.
        validate_clusters=wrappers_pb2.BoolValue(value=False),
    )


def _route(route: ir.Route) -> route_components_pb2.Route:
    result = route_components_pb2.Route(name=route.name, match=_match(route.match))
    action = route.action
    match action:
        case ir.Forward():
            result.route.cluster = action.cluster
            result.route.timeout.CopyFrom(_seconds(0))
            result.route.retry_policy.CopyFrom(
                route_components_pb2.RetryPolicy(
                    retry_on=RETRY_ON,
                    num_retries=_uint32(RETRIES_PER_REQUEST),
                    retry_host_predicate=[
                        route_components_pb2.RetryPolicy.RetryHostPredicate(
                            name="envoy.retry_host_predicates.previous_hosts",
                            typed_config=_any(previous_hosts_pb2.PreviousHostsPredicate()),
                        )
                    ],
                    host_selection_retry_max_attempts=3,
                )
            )
        case ir.Respond():
            result.direct_response.status = action.status
            result.direct_response.body.inline_string = f"{action.reason}\n"
        case ir.RedirectToHttps():
            result.redirect.https_redirect = True
            result.redirect.port_redirect = action.port
            result.redirect.response_code = route_components_pb2.RedirectAction.PERMANENT_REDIRECT
        case _:
            assert_never(action)
    return result


def _match(match: ir.Match) -> route_components_pb2.RouteMatch:
    result = route_components_pb2.RouteMatch()
    if match.kind is ir.PathKind.EXACT:
        result.path = match.path
    elif match.path == "/":
        result.prefix = "/"
    else:
        result.path_separated_prefix = match.path
    if match.one_label_under:
        regex = rf"(?i)[^.:]+\.{re.escape(match.one_label_under)}(:[0-9]+)?"
        result.headers.add(
            name=":authority",
            string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex)),
        )
    return result


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


# ── small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _ads() -> config_source_pb2.ConfigSource:
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def _address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))


def _any(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def _seconds(seconds: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds)


def _uint32(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)
