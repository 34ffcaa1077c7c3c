"""Which processes make up a cluster: one row each, where it runs and as whom it speaks to the API.

Apart from the supervisor so that the process model is a table. Fed by `plan`; read by the supervisor (what to start),
the zygote (what to import) and the API server's root (whose credentials to issue).
"""

from dataclasses import dataclass

from pilotage.up.core.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client of the API: the subject of its certificate and the file name of its kubeconfig."""

    file: str
    common_name: str
    organizations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. `component` names its root module in `pilotage.up.roots`."""

    name: str  # unique: "apiserver", "agent-n1"
    component: str
    node: str = ""  # runs in this node's network namespace; empty: in the fabric's own
    once: bool = False  # ends by itself when its work is done
    required: bool = True  # `up` waits for it


ADMIN = Identity(file="admin", common_name="kubernetes-admin", organizations=("system:masters",))
_CLUSTER_WIDE = (
    Identity(file="controllers", common_name="system:kube-controller-manager"),
    Identity(file="scheduler", common_name="system:kube-scheduler"),
    Identity(file="proxy", common_name="system:kube-proxy"),
    Identity(file="dns", common_name="system:pilotage:dns"),
    Identity(file="external-dns", common_name="system:pilotage:external-dns"),  # for whoever runs it by hand
    Identity(file="gateway", common_name="system:pilotage:gateway"),
    Identity(file="loadbalancer", common_name="system:pilotage:loadbalancer"),
)


def node_identity(node: str) -> Identity:
    """The agent of one node (KEP-279: the node authorizer's naming)."""
    return Identity(file=f"agent-{node}", common_name=f"system:node:{node}", organizations=("system:nodes",))


def identities(plan: Plan) -> tuple[Identity, ...]:
    """Everyone who needs a kubeconfig inside the fabric."""
    return (ADMIN, *_CLUSTER_WIDE, *(node_identity(node.name) for node in plan.nodes))


def processes(plan: Plan) -> tuple[Process, ...]:
    """All processes in the order they are started: first what everything waits for, then what takes longest."""
    rows = [Process(name=FIRST, component="apiserver"), Process(name="gateway", component="gateway")]
    rows += _on_nodes("agent", plan)
    rows.append(Process(name="controllers", component="controllers"))
    rows.append(Process(name="bootstrap", component="bootstrap", once=True))
    return (*rows, *_on_nodes("proxy", plan), *_on_nodes("dns", plan))


def _on_nodes(component: str, plan: Plan) -> tuple[Process, ...]:
    return tuple(Process(name=f"{component}-{node.name}", component=component, node=node.name) for node in plan.nodes)


FIRST = "apiserver"  # issues the credentials of all others

# What the zygote imports before it forks anything: common to all processes, so that they share the memory.
SHARED_MODULES = (
    "uvloop",
    "aiohttp.web",
    "pilotage.telemetry.metrics",
    "pilotage.api.core_v1",
    "pilotage.api.catalogue",
)

# What it imports then, in the order the processes are started. The API server imports its own part itself, after the
# fork: nobody shares it, and so it starts on one processor while the zygote goes on importing on another.
COMPONENTS = ("gateway", "agent", "controllers", "bootstrap", "proxy", "dns")
