"""Cluster addresses and node ports of Services: given once, never twice, free again when the Service is gone.

The pools are values of memory, rebuilt from the existing Services when the server starts and told of every change
afterwards. `allocate` runs after validation, just before the write; what it took is undone if the write fails.
Addresses chosen by hand come from the lower part of a range, which is handed out last (KEP-3070, KEP-3668).

Specification: KEP-563 and KEP-3331 (families), Service in the Kubernetes 1.36 API reference.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import chain

from pilotage.api.schema_problems import Problems
from pilotage.api.status import ApiError, invalid
from pilotage.apiserver.admission.operation import Document, Undo
from pilotage.apiserver.documents import Documents
from pilotage.kit.ipam import AddressPool, NumberPool, PoolExhaustedError

NODE_PORTS = (30000, 32767)
_HEADLESS = "None"


def _pools(network: str) -> list[AddressPool]:
    """A range as pools in the order they are drawn from: its lower part, kept for addresses chosen by hand, last."""
    parsed = ipaddress.ip_network(network)
    size = min(parsed.num_addresses, 2**16)
    band = min(max(16, size // 16), 256)
    last = parsed[min(parsed.num_addresses, 2**20) - (2 if parsed.version == 4 else 1)]
    if parsed.num_addresses > 2 * band:
        return [AddressPool(f"{parsed[band]}-{last}"), AddressPool(f"{parsed[1]}-{parsed[band - 1]}")]
    return [AddressPool(f"{parsed[1]}-{last}")]


class _Addresses:
    """One family's ranges, the cluster's own first; ServiceCIDR objects add others, which may overlap (KEP-1880)."""

    def __init__(self, network: str) -> None:
        self.family = f"IPv{ipaddress.ip_network(network).version}"
        self._ranges = {network: _pools(network)}

    def extend(self, network: str) -> None:
        """Also hand out addresses of this range."""
        self._ranges.setdefault(network, _pools(network))

    def shrink(self, network: str) -> None:
        """Hand out no more addresses of this range."""
        self._ranges.pop(network, None)

    def take(self) -> str:
        for pool in sorted(chain.from_iterable(self._ranges.values()), key=self._rank):
            while True:
                try:
                    address = pool.take()
                except PoolExhaustedError:
                    break
                # What an overlapping range has given away stays taken here as well.
                reserved = [other.reserve(address) for other in self._covering(address) if other is not pool]
                if all(reserved):
                    return address
        raise ApiError("InternalError", "failed to allocate a serviceIP: range is full")

    def _rank(self, pool: AddressPool) -> int:
        return next(pools.index(pool) for pools in self._ranges.values() if pool in pools)

    def reserve(self, address: str) -> str | None:
        """Take exactly this address; the reason when that is not possible."""
        pools = self._covering(address)
        if not pools:
            valid = ", ".join(self._ranges)
            return f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}"
        reserved = [pool.reserve(address) for pool in pools]
        return None if all(reserved) else "provided IP is already allocated"

    def release(self, address: str) -> None:
        for pool in self._covering(address):
            pool.release(address)

    def _covering(self, address: str) -> list[AddressPool]:
        return [pool for pools in self._ranges.values() for pool in pools if pool.covers(address)]


class _Ports:
    """Node ports, the lower part kept for ports chosen by hand."""

    def __init__(self, first: int, last: int) -> None:
        size = last - first + 1
        band = min(max(16, size // 32), 128)
        bounds = [(first + band, last), (first, first + band - 1)] if size > 2 * band else [(first, last)]
        self.first, self.last = first, last
        self._pools = [NumberPool(low, high) for low, high in bounds]

    def take(self) -> int:
        for pool in self._pools:
            try:
                return pool.take()
            except PoolExhaustedError:
                continue
        raise ApiError("InternalError", "failed to allocate a nodePort: range is full")

    def reserve(self, port: int) -> str | None:
        for pool in self._pools:
            if pool.first <= port <= pool.last:
                return None if pool.reserve(port) else "provided port is already allocated"
        valid = f"{self.first}-{self.last}"
        return f"provided port is not in the valid range. The range of valid ports is {valid}"

    def release(self, port: int) -> None:
        for pool in self._pools:
            if pool.first <= port <= pool.last:
                pool.release(port)


class ServiceAddresses:
    """The allocators of one cluster. `networks` holds one range, or two for dual-stack, the primary first."""

    def __init__(
        self, networks: Sequence[str], node_ports: tuple[int, int] = NODE_PORTS, documents: Documents | None = None
    ) -> None:
        self._families = {pool.family: pool for pool in map(_Addresses, networks)}
        self._networks = tuple(networks)
        self._ports = _Ports(*node_ports)
        self._documents = documents
        if documents is not None:
            for service_cidr in documents.list("networking.k8s.io", "servicecidrs"):
                self.observe_range(None, service_cidr)
            for service in documents.list("", "services"):
                self.observe(None, service)

    def observe_range(self, previous: Document | None, current: Document | None) -> None:
        """A stored ServiceCIDR has changed. The ranges the cluster was started with stay whatever happens."""
        had, has = _ranges(previous), _ranges(current)
        for network in had - has - {*self._networks}:
            for pool in self._families.values():
                pool.shrink(network)
        for network in has - had:
            pool_of_family = self._families.get(f"IPv{ipaddress.ip_network(network).version}")
            if pool_of_family is None or network in self._networks:
                continue
            pool_of_family.extend(network)
            for service in self._documents.list("", "services") if self._documents is not None else ():
                for address in held(service)[0]:
                    pool_of_family.reserve(address)

    def observe(self, previous: Document | None, current: Document | None) -> None:
        """A stored Service has changed: hold what it has, free what it no longer has."""
        had_addresses, had_ports = held(previous)
        has_addresses, has_ports = held(current)
        for address in has_addresses - had_addresses:
            for pool in self._families.values():
                pool.reserve(address)
        for port in has_ports - had_ports:
            self._ports.reserve(port)
        for address in had_addresses - has_addresses:
            for pool in self._families.values():
                pool.release(address)
        for port in had_ports - has_ports:
            self._ports.release(port)

    def allocate(self, old: Document | None, new: Document) -> Undo:
        """Complete a valid Service in place. Raises ApiError Invalid or InternalError, with nothing taken."""
        taken: list[Undo] = []

        def undo() -> None:
            while taken:
                taken.pop()()

        problems = Problems()
        try:
            self._allocate_addresses(old, new["spec"], problems, taken)
            if not problems.errors:
                self._allocate_ports(old, new["spec"], problems, taken)
        except BaseException:
            undo()
            raise
        if problems.errors:
            undo()
            raise invalid("Service", new["metadata"].get("name", ""), problems.errors)
        return undo

    # Addresses

    def _allocate_addresses(self, old: Document | None, spec: Document, problems: Problems, taken: list[Undo]) -> None:
        if spec.get("type") == "ExternalName":
            return
        families = self._choose_families(spec, problems)
        if problems.errors:
            return
        spec["ipFamilies"] = families
        given = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []))
        if given[:1] == [_HEADLESS]:
            spec["clusterIP"], spec["clusterIPs"] = _HEADLESS, [_HEADLESS]
            return
        mine, _ = held(old)
        addresses: list[str] = []
        for index, family in enumerate(families):
            pool = self._families[family]
            if index < len(given) and given[index]:
                address = given[index]
                if address not in mine:
                    problem = pool.reserve(address)
                    if problem is not None:
                        problems.invalid("spec.clusterIPs", given, f"failed to allocate IP {address}: {problem}")
                        return
                    taken.append(lambda pool=pool, address=address: pool.release(address))  # type: ignore[misc]
            else:
                address = pool.take()
                taken.append(lambda pool=pool, address=address: pool.release(address))  # type: ignore[misc]
            addresses.append(address)
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses

    def _choose_families(self, spec: Document, problems: Problems) -> list[str]:
        """Fills in ipFamilyPolicy; returns the families, the first of them the Service's primary."""
        available = list(self._families)
        wanted = list(spec.get("ipFamilies") or ())
        # Whoever writes the endpoints decides of which families they are, whatever the cluster's addresses are.
        by_hand = _HEADLESS in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ())) and not spec.get("selector")
        for index, family in enumerate(wanted):
            if family not in available and not by_hand:
                problems.invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
        given = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if ip not in ("", _HEADLESS)]
        for index, address in enumerate(given):
            family = f"IPv{ipaddress.ip_address(address).version}"
            if index < len(wanted) and wanted[index] != family:
                problems.invalid(
                    f"spec.clusterIPs[{index}]",
                    address,
                    f"expected an {wanted[index]} value as indicated by `ipFamilies[{index}]`",
                )
            elif index >= len(wanted):
                wanted.append(family)
                if family not in available:
                    problems.invalid(
                        "spec.clusterIPs",
                        given,
                        f"failed to allocate IP {address}: {family} is not configured on this cluster",
                    )
        unstated = "RequireDualStack" if len(wanted) == 2 or by_hand else "SingleStack"
        policy = spec.get("ipFamilyPolicy") or unstated
        if policy == "RequireDualStack" and len(available) < 2 and not by_hand:
            detail = "this cluster is not configured for dual-stack services"
            problems.invalid("spec.ipFamilyPolicy", policy, detail)
        if policy == "SingleStack" and len(wanted) == 2:
            detail = "may only hold up to 1 value when `ipFamilyPolicy` is 'SingleStack'"
            problems.invalid("spec.ipFamilies", wanted, detail)
        spec["ipFamilyPolicy"] = policy
        if not wanted:
            wanted = available[:1]
        if policy != "SingleStack" and len(wanted) == 1:
            others = ("IPv4", "IPv6") if by_hand else available
            wanted += [family for family in others if family not in wanted]
        return wanted

    # Node ports

    def _allocate_ports(self, old: Document | None, spec: Document, problems: Problems, taken: list[Undo]) -> None:
        _, mine = held(old)
        kind = spec.get("type")
        if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)):
            # The same number may serve several protocols of one Service.
            shared: dict[int, set[str]] = {}
            for index, port in enumerate(spec.get("ports") or ()):
                number, protocol = port.get("nodePort") or 0, port.get("protocol", "TCP")
                if not number:
                    continue
                where = f"spec.ports[{index}].nodePort"
                if number not in shared and number not in mine:
                    self._reserve_port(number, where, problems, taken)
                shared.setdefault(number, set()).add(protocol)
            if problems.errors:
                return
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    protocol = port.get("protocol", "TCP")
                    twin = next(
                        (
                            other["nodePort"]
                            for other in spec["ports"]
                            if other.get("port") == port.get("port")
                            and other.get("nodePort")
                            and protocol not in shared.get(other["nodePort"], ())
                        ),
                        None,
                    )
                    port["nodePort"] = self._take_port(taken) if twin is None else twin
                    shared.setdefault(port["nodePort"], set()).add(protocol)
        elif kind == "LoadBalancer":
            for index, port in enumerate(spec.get("ports") or ()):
                number = port.get("nodePort") or 0
                if number and number not in mine:
                    self._reserve_port(number, f"spec.ports[{index}].nodePort", problems, taken)
        if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            number = spec.get("healthCheckNodePort") or 0
            if not number:
                spec["healthCheckNodePort"] = self._take_port(taken)
            elif number not in mine:
                self._reserve_port(number, "spec.healthCheckNodePort", problems, taken)

    def _take_port(self, taken: list[Undo]) -> int:
        port = self._ports.take()
        taken.append(lambda: self._ports.release(port))
        return port

    def _reserve_port(self, number: int, where: str, problems: Problems, taken: list[Undo]) -> None:
        problem = self._ports.reserve(number)
        if problem is not None:
            problems.invalid(where, number, problem)
        else:
            taken.append(lambda: self._ports.release(number))


def _ranges(service_cidr: Document | None) -> set[str]:
    """The ranges a ServiceCIDR offers; none once it is going."""
    if service_cidr is None or "deletionTimestamp" in service_cidr["metadata"]:
        return set()
    return set((service_cidr.get("spec") or {}).get("cidrs") or ())


def held(service: Document | None) -> tuple[set[str], set[int]]:
    """The addresses and node ports a Service has."""
    spec = (service or {}).get("spec") or {}
    addresses = {*(spec.get("clusterIPs") or ()), spec.get("clusterIP")} - {None, "", _HEADLESS}
    ports = {port.get("nodePort") for port in spec.get("ports") or ()} | {spec.get("healthCheckNodePort")}
    return addresses, {port for port in ports if port}
