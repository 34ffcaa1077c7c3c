"""resolv.conf, hosts and host name of a pod, as text.

Stands apart because names are half of what this project is about. Source: "DNS for Services and Pods" in the
Kubernetes documentation, resolv.conf(5). The worker writes the files. Leaves out answering queries (`dns`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pilotage.api.core_v1 import HostAlias, Pod
from pilotage.kit.errors import PilotageError

# resolv.conf(5) and "DNS for Services and Pods": what is above is cut off, as the kubelet does.
NAMESERVERS_MAX = 3
SEARCHES_MAX = 32
SEARCH_CHARACTERS_MAX = 2048
HOSTNAME_MAX = 63
KERNEL_HOSTNAME_MAX = 64  # uname(2)


class HostnameTooLongError(PilotageError):
    """The kernel cannot hold the name that the pod asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """The three lists of a resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def render(self) -> str:
        lines = []
        if self.searches:
            lines.append("search " + " ".join(self.searches))
        lines.extend(f"nameserver {server}" for server in self.nameservers)
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(f"{line}\n" for line in lines)


def parse_resolv_conf(text: str) -> ResolvConf:
    """The last `search` (or `domain`) line counts, as in the C library."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                nameservers.append(server)
            case ["search" | "domain", *names]:
                searches = tuple(names)
            case ["options", *given]:
                options.extend(given)
    return ResolvConf(nameservers=tuple(nameservers), searches=searches, options=tuple(options))


def resolv_conf(pod: Pod, *, cluster_dns: Sequence[str], cluster_domain: str, node: ResolvConf) -> ResolvConf:
    """What the pod gets: what it wants, as far as a resolver can read it."""
    return bounded(wanted(pod, cluster_dns=cluster_dns, cluster_domain=cluster_domain, node=node))


def wanted(pod: Pod, *, cluster_dns: Sequence[str], cluster_domain: str, node: ResolvConf) -> ResolvConf:
    """By dnsPolicy; `dnsConfig` is merged on top. `node` is what the node itself uses."""
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    match policy:
        case "None":
            base = ResolvConf()
        case "Default":
            base = node
        case _:
            namespace = pod.metadata.namespace
            own = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain)
            base = ResolvConf(
                nameservers=tuple(cluster_dns),
                searches=own + tuple(name for name in node.searches if name not in own and name != "."),
                options=("ndots:5",),
            )
    return _with_dns_config(base, pod)


def _with_dns_config(base: ResolvConf, pod: Pod) -> ResolvConf:
    config = pod.spec.dns_config
    options = {option.partition(":")[0]: option for option in base.options}
    for given in config.options:
        options[given.name] = given.name if given.value is None else f"{given.name}:{given.value}"
    return ResolvConf(
        nameservers=_unique((*base.nameservers, *config.nameservers)),
        searches=_unique((*base.searches, *config.searches)),
        options=tuple(options.values()),
    )


def _unique(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def omissions(wanted: ResolvConf, applied: ResolvConf) -> tuple[str, ...]:
    """What was cut off, in the kubelet's words."""
    found = []
    if wanted.searches != applied.searches:
        line = " ".join(applied.searches)
        found.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + line
        )
    if wanted.nameservers != applied.nameservers:
        line = " ".join(applied.nameservers)
        found.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + line
        )
    return tuple(found)


def bounded(conf: ResolvConf) -> ResolvConf:
    """As much of it as resolvers read."""
    searches: list[str] = []
    for name in conf.searches[:SEARCHES_MAX]:
        if len(" ".join([*searches, name])) > SEARCH_CHARACTERS_MAX:
            break
        searches.append(name)
    return ResolvConf(nameservers=conf.nameservers[:NAMESERVERS_MAX], searches=tuple(searches), options=conf.options)


def hostname(pod: Pod) -> str:
    """spec.hostname or the pod's name, cut to what the kernel and DNS labels allow; or what overrides both."""
    if pod.spec.hostname_override:
        return pod.spec.hostname_override
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_MAX].rstrip("-.")


def domain(pod: Pod, cluster_domain: str) -> str:
    """`<subdomain>.<namespace>.svc.<cluster domain>`; empty without spec.subdomain."""
    if not pod.spec.subdomain or pod.spec.hostname_override:
        return ""
    return f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"


def kernel_hostname(pod: Pod, cluster_domain: str) -> str:
    """What hostname(1) prints inside (KEP-1797: the full name if asked for); raises `HostnameTooLongError`."""
    suffix = domain(pod, cluster_domain)
    if not pod.spec.set_hostname_as_fqdn or not suffix:
        return hostname(pod)
    full = f"{hostname(pod)}.{suffix}"
    if len(full) > KERNEL_HOSTNAME_MAX:
        raise HostnameTooLongError(
            f"Failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({KERNEL_HOSTNAME_MAX} characters is the max, {len(full)} characters requested)"
        )
    return full


def hosts(pod: Pod, *, pod_ips: Sequence[str], cluster_domain: str) -> str:
    """/etc/hosts of a pod with a network of its own."""
    lines = [
        "# Managed by Pilotage: one file for all containers of the pod.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    name, suffix = hostname(pod), domain(pod, cluster_domain)
    for ip in pod_ips:
        lines.append(f"{ip}\t{name}.{suffix}\t{name}" if suffix else f"{ip}\t{name}")
    return "".join(f"{line}\n" for line in lines) + host_aliases(pod.spec.host_aliases)


def host_aliases(aliases: Sequence[HostAlias]) -> str:
    """The lines of spec.hostAliases; appended to the node's own file when the pod uses the host's network."""
    if not aliases:
        return ""
    lines = ["", "# Entries added by HostAliases."]
    lines.extend(f"{alias.ip}\t" + "\t".join(alias.hostnames) for alias in aliases)
    return "".join(f"{line}\n" for line in lines)
