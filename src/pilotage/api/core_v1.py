"""core/v1: nodes, pods, services and what pods read, as far as components read them.

Source: Kubernetes 1.36 API reference, core/v1. `IntOrString` fields are `int | str`; quantities stay text until
`quantity.parse` is asked. Longer than other modules because a group-version is one vocabulary: whoever reads Pod needs
Container, and both are looked up in the API reference under the same heading.
"""

from typing import Any, ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import UID, Condition, LabelSelector, Object, ObservedCondition

# ── references ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ObjectReference(Value):
    """Points at any object."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: UID = UID("")
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(Value):
    name: str = ""


# ── namespaces, nodes ───────────────────────────────────────────────────────────────────────────────────────────────


class NamespaceSpec(Value):
    finalizers: tuple[str, ...] = ()


class NamespaceStatus(Value):
    phase: str = ""  # Active or Terminating
    conditions: tuple[Condition, ...] = ()


class Namespace(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Namespace"
    plural: ClassVar[str] = "namespaces"
    namespaced: ClassVar[bool] = False

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class Taint(Value):
    key: str
    effect: str  # NoSchedule, PreferNoSchedule or NoExecute
    value: str = ""
    time_added: str = ""


class NodeSpec(Value):
    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeCondition(Value):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str = ""
    last_transition_time: str = ""


class NodeAddress(Value):
    type: str  # InternalIP, ExternalIP or Hostname
    address: str


class DaemonEndpoint(Value, rename={"port": "Port"}):
    port: int = 0  # the API really spells it "Port"


class NodeDaemonEndpoints(Value):
    kubelet_endpoint: DaemonEndpoint = DaemonEndpoint()


class ContainerImage(Value):
    names: tuple[str, ...] = ()
    size_bytes: int = 0


class NodeSystemInfo(Value):
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    kube_proxy_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class NodeStatus(Value):
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[NodeCondition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()
    node_info: NodeSystemInfo = NodeSystemInfo()
    images: tuple[ContainerImage, ...] = ()


class Node(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Node"
    plural: ClassVar[str] = "nodes"
    namespaced: ClassVar[bool] = False

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# ── configuration ───────────────────────────────────────────────────────────────────────────────────────────────────


class ConfigMap(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "ConfigMap"
    plural: ClassVar[str] = "configmaps"

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}  # base64
    immutable: bool = False


class Secret(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Secret"
    plural: ClassVar[str] = "secrets"

    type: str = "Opaque"
    data: dict[str, str] = {}  # base64
    immutable: bool = False


class ServiceAccount(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "ServiceAccount"
    plural: ClassVar[str] = "serviceaccounts"

    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None  # None: yes


# ── container parts ─────────────────────────────────────────────────────────────────────────────────────────────────


class ConfigMapKeySelector(Value):
    key: str
    name: str = ""
    optional: bool = False


class SecretKeySelector(Value):
    key: str
    name: str = ""
    optional: bool = False


class ObjectFieldSelector(Value):
    field_path: str
    api_version: str = "v1"


class ResourceFieldSelector(Value):
    resource: str
    container_name: str = ""
    divisor: str = ""


class EnvVarSource(Value):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: ConfigMapKeySelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EnvVar(Value):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvFromReference(Value):
    name: str = ""
    optional: bool = False


class EnvFromSource(Value):
    prefix: str = ""
    config_map_ref: EnvFromReference | None = None
    secret_ref: EnvFromReference | None = None


class ContainerPort(Value):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = ""


class ResourceRequirements(Value):
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}


class ExecAction(Value):
    command: tuple[str, ...] = ()


class HTTPHeader(Value):
    name: str
    value: str = ""


class HTTPGetAction(Value):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Value):
    port: int | str
    host: str = ""


class GRPCAction(Value):
    port: int
    service: str = ""


class SleepAction(Value):
    seconds: int = 0


class Probe(Value):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None  # None: the pod's


class LifecycleHandler(Value):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Value):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class Capabilities(Value):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Value):
    type: str
    localhost_profile: str = ""


class AppArmorProfile(Value):
    type: str  # RuntimeDefault, Localhost or Unconfined
    localhost_profile: str = ""


class SecurityContext(Value):
    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    proc_mount: str = ""
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class VolumeMount(Value):
    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""
    recursive_read_only: str = ""  # Disabled (the default), IfPossible or Enabled


class ContainerRestartRuleOnExitCodes(Value):
    operator: str  # In or NotIn
    values: tuple[int, ...] = ()


class ContainerRestartRule(Value):
    action: str  # Restart
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class ContainerResizePolicy(Value):
    resource_name: str  # cpu or memory
    restart_policy: str = "NotRequired"  # or RestartContainer


class Container(Value):
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    restart_policy: str = ""  # "Always" makes an init container a sidecar (KEP-753); empty: the pod's (KEP-5307)
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    image_pull_policy: str = ""
    security_context: SecurityContext = SecurityContext()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class EphemeralContainer(Container):
    """A container that is added to a running pod to look into it (KEP-277); it never runs again."""

    target_container_name: str = ""  # whose processes it sees; empty: its own only


# ── volumes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class KeyToPath(Value):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Value):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class SecretVolumeSource(Value):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class EmptyDirVolumeSource(Value):
    medium: str = ""
    size_limit: str = ""


class HostPathVolumeSource(Value):
    path: str
    type: str = ""


class DownwardAPIVolumeFile(Value):
    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(Value):
    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: int = 0o644


class ServiceAccountTokenProjection(Value):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class SecretProjection(Value):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class ConfigMapProjection(Value):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class DownwardAPIProjection(Value):
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class VolumeProjection(Value):
    secret: SecretProjection | None = None
    config_map: ConfigMapProjection | None = None
    downward_api: DownwardAPIProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Value):
    sources: tuple[VolumeProjection, ...] = ()
    default_mode: int = 0o644


class PersistentVolumeClaimVolumeSource(Value):
    claim_name: str
    read_only: bool = False


class Volume(Value):
    name: str
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None


# ── scheduling parts ────────────────────────────────────────────────────────────────────────────────────────────────


class Toleration(Value):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None  # None: for ever


class NodeSelectorRequirement(Value):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class NodeSelectorTerm(Value):
    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(Value):
    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredSchedulingTerm(Value):
    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(Value):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()


class PodAffinityTerm(Value):
    topology_key: str
    label_selector: LabelSelector | None = None  # None: no pod
    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    mismatch_label_keys: tuple[str, ...] = ()


class WeightedPodAffinityTerm(Value):
    weight: int
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Value):
    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()


class Affinity(Value):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Value):
    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str = "Honor"
    node_taints_policy: str = "Ignore"
    match_label_keys: tuple[str, ...] = ()


class PodSchedulingGate(Value):
    name: str


class PodReadinessGate(Value):
    condition_type: str


# ── pods ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class HostAlias(Value):
    ip: str
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Value):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Value):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class Sysctl(Value):
    name: str
    value: str


class PodSecurityContext(Value):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: str = ""  # Merge (the default) or Strict (KEP-3619)
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    sysctls: tuple[Sysctl, ...] = ()
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class PodSpec(Value):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[EphemeralContainer, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig = PodDNSConfig()
    node_selector: dict[str, str] = {}
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""  # empty until bound
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_users: bool = True  # False: users of its own (KEP-127)
    share_process_namespace: bool = False
    security_context: PodSecurityContext = PodSecurityContext()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = False
    hostname_override: str = ""  # what the pod's own hostname(1) says, whatever DNS says (KEP-4762)
    affinity: Affinity = Affinity()
    scheduler_name: str = "default-scheduler"
    tolerations: tuple[Toleration, ...] = ()
    host_aliases: tuple[HostAlias, ...] = ()
    priority: int = 0
    priority_class_name: str = ""
    preemption_policy: str = ""
    overhead: dict[str, str] = {}
    resources: ResourceRequirements = ResourceRequirements()
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    scheduling_gates: tuple[PodSchedulingGate, ...] = ()
    enable_service_links: bool = True


class ContainerStateWaiting(Value):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Value):
    started_at: str = ""


class ContainerStateTerminated(Value):
    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    container_id: str = ""


class ContainerState(Value):
    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Value):
    name: str
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str = ""
    started: bool | None = None
    stop_signal: str = ""  # the one that will be sent, whoever named it (KEP-4960)
    allocated_resources: dict[str, str] = {}  # requests that the node has granted (KEP-1287)
    resources: ResourceRequirements | None = None  # those in force; None: no container yet


class PodCondition(Value):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_probe_time: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class PodIP(Value):
    ip: str = ""


class HostIP(Value):
    ip: str = ""


class PodStatus(Value):
    phase: str = ""
    conditions: tuple[PodCondition, ...] = ()
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = ""
    host_ips: tuple[HostIP, ...] = ()
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    start_time: str = ""
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    observed_generation: int = 0
    allocated_resources: dict[str, str] = {}  # requests of the pod together that the node has granted (KEP-5419)
    resources: ResourceRequirements | None = None  # what the pod's group is held to; None: no agent has said so

    def condition(self, type: str) -> PodCondition | None:
        """The condition of that type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == type), None)

    @property
    def is_ready(self) -> bool:
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.conditions)


class Pod(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Pod"
    plural: ClassVar[str] = "pods"

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplateMeta(Value):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()


class PodTemplateSpec(Value):
    metadata: PodTemplateMeta = PodTemplateMeta()
    spec: PodSpec = PodSpec()


class ReplicationControllerSpec(Value):
    selector: dict[str, str] = {}
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    replicas: int = 1
    min_ready_seconds: int = 0


class ReplicationControllerStatus(Value):
    observed_generation: int = 0
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class ReplicationController(Object):
    """What ReplicaSets were called before they had set-based selectors."""

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "ReplicationController"
    plural: ClassVar[str] = "replicationcontrollers"

    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: ReplicationControllerStatus = ReplicationControllerStatus()


class VolumeNodeAffinity(Value):
    required: NodeSelector | None = None  # None: every node reaches the volume


class PersistentVolumeSpec(Value):
    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolume(Object):
    """A volume, as far as the scheduler cares: from which nodes it can be reached."""

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "PersistentVolume"
    plural: ClassVar[str] = "persistentvolumes"
    namespaced: ClassVar[bool] = False

    spec: PersistentVolumeSpec = PersistentVolumeSpec()


class PersistentVolumeClaimSpec(Value):
    volume_name: str = ""  # empty until bound
    access_modes: tuple[str, ...] = ()


class PersistentVolumeClaim(Object):
    """A claim, as far as workloads and the scheduler care: that it is there, whose it is, and whether it is bound."""

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "PersistentVolumeClaim"
    plural: ClassVar[str] = "persistentvolumeclaims"

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()


# ── services ────────────────────────────────────────────────────────────────────────────────────────────────────────


class ServicePort(Value):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    node_port: int = 0
    app_protocol: str = ""


class ClientIPConfig(Value):
    timeout_seconds: int = 10800


class SessionAffinityConfig(Value):
    client_ip: ClientIPConfig = ClientIPConfig()


class ServiceSpec(Value):
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    load_balancer_ip: str = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool | None = None  # None: yes; only for type LoadBalancer
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = ""  # Cluster or Local; empty for Services that are not reached from outside
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    traffic_distribution: str = ""


class PortStatus(Value):
    port: int
    protocol: str = "TCP"
    error: str = ""


class LoadBalancerIngress(Value):
    ip: str = ""
    hostname: str = ""
    ip_mode: str = ""
    ports: tuple[PortStatus, ...] = ()


class LoadBalancerStatus(Value):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Value):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[ObservedCondition, ...] = ()


class Service(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Service"
    plural: ClassVar[str] = "services"

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointAddress(Value):
    ip: str
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None


class EndpointPort(Value):
    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSubset(Value):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Endpoints"
    plural: ClassVar[str] = "endpoints"

    subsets: tuple[EndpointSubset, ...] = ()


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class EventSource(Value):
    component: str = ""
    host: str = ""


class Event(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Event"
    plural: ClassVar[str] = "events"

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    source: EventSource = EventSource()
    first_timestamp: str = ""
    last_timestamp: str = ""
    count: int = 0
    type: str = ""  # Normal or Warning
    reporting_component: str = ""
    reporting_instance: str = ""


class Binding(Object):
    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Binding"
    plural: ClassVar[str] = "bindings"

    target: ObjectReference = ObjectReference()
