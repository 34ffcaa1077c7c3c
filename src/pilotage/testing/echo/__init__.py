"""The server of the demo topology: answers HTTP, gRPC, TCP and UDP by saying who answered and what it saw.

Purpose. A request that crossed DNS, the service proxy and the gateway should come back with its own story: which pod
answered, on which node and zone, what that pod saw of the caller, and whom it asked in turn. The same program is also
the client (`pilotage-echo call`, `pilotage-echo resolve`) for use from inside a pod.

Inputs → outputs. A request on any of the four protocols → one JSON answer; with `--call URL` the answers of the
upstreams are nested in it, so the answer of the first server is the whole chain.

Invariants. Nothing is imported before it is needed (a pod answers in under 200 ms from exec); every buffer is bounded;
after SIGTERM the readiness probe fails first and open requests are finished.

Reading order. `identity`, `server`, `http`, `plain`, `grpc_echo`, `upstream`, `resolve`, `command`.

Specifications. RFC 9112 (HTTP/1.1), gRPC health checking protocol (grpc.health.v1), resolv.conf(5).
"""
