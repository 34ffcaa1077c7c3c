"""From a container of a pod and its image to an OCI document: environment, user, mounts, root.

Stands apart because it gathers what `core.oci` then turns into a document; the pod worker calls `prepare` once per
start. Everything that stops a container from being created is raised as `StartRefused` with the API's reason.
"""

import base64
import contextlib
import json
import os
import platform
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.agent import app_armor, devices, users
from pilotage.agent.core import app_armor as core_app_armor
from pilotage.agent.core import environment, fields, groups, oci, resolver, seccomp
from pilotage.agent.core.fields import FieldError, NodeFacts
from pilotage.agent.core.oci import Mount, User
from pilotage.agent.errors import MountFailure, StartRefused
from pilotage.agent.images import USUAL_PATH, Image, host_image
from pilotage.agent.mounts import Mounts
from pilotage.agent.references import References
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.user_namespaces import IDS, PodUsers
from pilotage.agent.volumes import Volumes
from pilotage.api import quantity
from pilotage.api.core_v1 import (
    Capabilities,
    Container,
    EnvFromReference,
    EnvVar,
    Pod,
    SecurityContext,
    Service,
    VolumeMount,
)
from pilotage.api.quantity import QuantityError
from pilotage.network import NetworkError

TERMINATION_MESSAGE_BYTES_MAX = 4096

# Whoever ignores SIGCHLD has its dead children, adopted ones too, reaped by the kernel (wait(2)); the disposition
# survives execve(2). What runs in the end is one `sleep`.
PROCESS_HOLDER = ("env", "--ignore-signal=CHLD", "sleep", "infinity")


def holder_id(uid: str) -> str:
    """Of the container that holds the pod's PID namespace."""
    return f"{uid}-holder"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodContext:
    """What one pod's containers share."""

    pod: Pod
    pod_ips: tuple[str, ...]
    network_namespace: str  # empty: the node's own
    sandbox_namespaces: dict[str, str]
    directory: Path  # the pod's own directory on the node
    shared_memory: Path  # mounted on /dev/shm
    users: PodUsers | None = None  # None: the node's


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A container ready to be created."""

    document: dict[str, object]
    image: Image
    termination_log: Path


class ContainerSetup:
    """Prepares containers of this node."""

    def __init__(
        self,
        *,
        roots: RootFSMaker,
        volumes: Volumes,
        references: References,
        services: Callable[[], Iterable[Service]],
        node: Callable[[], NodeFacts],
        cgroup_path: Callable[[str, str], str],
        unified: bool,
        memory_bytes: int,
        privileged: bool,
        cluster_domain: str,
        seccomp_dir: Path,
    ) -> None:
        self._roots = roots
        self._volumes = volumes
        self._references = references
        self._services = services
        self._node = node
        self._cgroup_path = cgroup_path
        self._unified = unified  # control groups of version 2: memory can be protected
        self._memory_bytes = memory_bytes
        self._privileged = privileged  # on the machine, not only in a user namespace
        self._grantable = oci.capabilities_in(Path("/proc/self/status").read_text())
        # Root of a container, or of a service, may lack what the kernel asks for (capabilities(7)).
        self._may_lower_oom_score = privileged and "CAP_SYS_RESOURCE" in self._grantable
        self._seccomp_dir = seccomp_dir  # of Localhost profiles
        self._cluster_domain = cluster_domain

    async def prepare(
        self,
        context: PodContext,
        container: Container,
        container_id: str,
        image: Image,
        *,
        process_namespace: str = "",  # empty: one of its own, or what the pod says
    ) -> Prepared:
        """Everything up to the document; the root is mounted. Raises `StartRefused`."""
        pod = context.pod
        try:
            variables = await self._environment(context, container, image)
            user = users.resolve(pod, container, image)
            users.check_mapped(user)
            if context.users is not None:
                users.check_own(user, IDS)
            container_mounts, termination_log = self._mounts(context, container, container_id, variables)
        except (FieldError, MountFailure, QuantityError, TimeoutError) as error:
            text = str(error) or "timed out waiting for the API server"
            raise StartRefused("CreateContainerConfigError", text) from error
        except OSError as error:
            raise StartRefused("CreateContainerError", f"{error.filename or ''}: {error.strerror}") from error
        profile = self._seccomp(pod, container)
        name = resolver.kernel_hostname(pod, self._cluster_domain)
        try:
            root = self._roots.make(image, container_id, users=context.users)
        except NetworkError as error:
            raise StartRefused("CreateContainerError", f"no root for a pod with users of its own: {error}") from error
        namespaces = {"mount": "", "pid": "", **context.sandbox_namespaces}
        if context.network_namespace:
            namespaces["network"] = context.network_namespace
        if process_namespace:
            namespaces["pid"] = process_namespace
        elif pod.spec.host_pid:
            namespaces.pop("pid")
        if pod.spec.host_ipc:
            namespaces.pop("ipc", None)
        if pod.spec.host_network:
            namespaces.pop("uts", None)
        bundle = oci.Bundle(
            rootfs=str(root.path),
            args=_command(container, image, variables),
            environment=variables,
            working_directory=container.working_dir or image.working_directory,
            user=user,
            hostname=name,
            mounts=(*root.mounts, *container_mounts),
            namespaces=namespaces,
            cgroup_path=self._cgroup_path(pod.metadata.uid, container_id),
            unified=self._memory_protection(pod, container),
            memory_bytes=self._memory_bytes,
            hidden_paths=root.hidden_paths,
            grantable=self._grantable,
            seccomp=profile,
            app_armor=_app_armor(pod, container),
            devices=devices.of_the_node() if container.security_context.privileged and self._privileged else (),
            may_lower_oom_score=self._may_lower_oom_score,
        )
        document = _owned(oci.document(pod, container, bundle), context.users)
        return Prepared(document=document, image=image, termination_log=termination_log)

    def _memory_protection(self, pod: Pod, container: Container) -> Mapping[str, str]:
        if not self._unified:
            return {}
        allocatable = quantity.whole(self._node().allocatable.get("memory", "0"))
        return groups.memory_protection(pod, container, allocatable)

    def process_holder(self, uid: str, own: PodUsers | None = None) -> dict[str, object]:
        """The document of the process that holds a pod's PID namespace and reaps what dies in it.

        It can do nothing and sees nothing that a container of the host image would not: a container that is allowed to
        trace may look at it through /proc/1.
        """
        identifier = holder_id(uid)
        root = self._roots.make(host_image(), identifier, users=own)
        nothing = SecurityContext(
            capabilities=Capabilities(drop=("ALL",)), allow_privilege_escalation=False, read_only_root_filesystem=True
        )
        bundle = oci.Bundle(
            rootfs=str(root.path),
            args=PROCESS_HOLDER,
            environment={"PATH": USUAL_PATH},
            working_directory="/",
            user=User(),
            hostname="holder",
            mounts=root.mounts,
            namespaces={"mount": "", "pid": "", "ipc": "", "uts": "", "network": ""},
            cgroup_path=self._cgroup_path(uid, identifier),
            memory_bytes=self._memory_bytes,
            hidden_paths=root.hidden_paths,
            seccomp=seccomp.runtime_default((), platform.machine()),
            may_lower_oom_score=self._may_lower_oom_score,
        )
        return _owned(oci.document(Pod(), Container(name="holder", security_context=nothing), bundle), own)

    def _seccomp(self, pod: Pod, container: Container) -> dict[str, Any] | None:
        """The container's profile, or the pod's; None for an unconfined one. Raises `StartRefused`."""
        wanted = container.security_context.seccomp_profile or pod.spec.security_context.seccomp_profile
        if wanted is None or container.security_context.privileged:
            return None
        match wanted.type:
            case "RuntimeDefault":
                return seccomp.runtime_default(oci.capabilities_of(container, self._grantable), platform.machine())
            case "Localhost":
                path = self._seccomp_dir / wanted.localhost_profile
                try:
                    if not path.resolve().is_relative_to(self._seccomp_dir.resolve()):
                        raise ValueError("leads out of the profiles' directory")
                    profile: dict[str, Any] = json.loads(path.read_bytes())
                except (OSError, ValueError) as error:
                    message = f'cannot load seccomp profile "{path}": {error}'
                    raise StartRefused("CreateContainerError", message) from error
                return profile
        return None

    # ── environment ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _environment(self, context: PodContext, container: Container, image: Image) -> dict[str, str]:
        """Later ones win: image, host name, Services, envFrom, env."""
        pod = context.pod
        variables = dict(one.partition("=")[::2] for one in image.environment)
        own_name = resolver.kernel_hostname(pod, self._cluster_domain)
        variables["HOSTNAME"] = socket.gethostname() if pod.spec.host_network else own_name
        if container.tty:
            variables.setdefault("TERM", "xterm")
        services = environment.service_variables(
            self._services(), pod.metadata.namespace, links=pod.spec.enable_service_links
        )
        variables |= services
        # `$(VAR)` may refer to what Kubernetes sets, not to what the image brings.
        known = dict(services)
        for source in container.env_from:
            known |= await self._all_keys(pod, source.prefix, source.config_map_ref, source.secret_ref)
        for variable in container.env:
            if variable.value_from is None:
                known[variable.name] = environment.expand(variable.value, known)
            else:
                value = await self._value(context, container, variable)
                if value is not None:
                    known[variable.name] = value
        return variables | known

    async def _all_keys(
        self,
        pod: Pod,
        prefix: str,
        config_map_ref: EnvFromReference | None,
        secret_ref: EnvFromReference | None,
    ) -> dict[str, str]:
        namespace, uid = pod.metadata.namespace, pod.metadata.uid
        if config_map_ref is not None:
            config_map = await self._references.config_map(namespace, config_map_ref.name, holder=uid)
            if config_map is not None:
                return {prefix + key: value for key, value in config_map.data.items()}
            if not config_map_ref.optional:
                raise FieldError(f'configmap "{config_map_ref.name}" not found')
        if secret_ref is not None:
            secret = await self._references.secret(namespace, secret_ref.name, holder=uid)
            if secret is not None:
                return {prefix + key: _decoded(value) for key, value in secret.data.items()}
            if not secret_ref.optional:
                raise FieldError(f'secret "{secret_ref.name}" not found')
        return {}

    async def _value(self, context: PodContext, container: Container, variable: EnvVar) -> str | None:
        """The value of a `valueFrom`; None for an optional one that does not exist."""
        source, pod = variable.value_from, context.pod
        assert source is not None
        namespace, uid = pod.metadata.namespace, pod.metadata.uid
        if source.field_ref is not None:
            return fields.resolve(pod, source.field_ref, node=self._node(), pod_ips=context.pod_ips)
        if source.resource_field_ref is not None:
            return fields.resolve_resource(pod, source.resource_field_ref, container=container.name, node=self._node())
        if (reference := source.config_map_key_ref) is not None:
            config_map = await self._references.config_map(namespace, reference.name, holder=uid)
            if config_map is None and not reference.optional:
                raise FieldError(f'configmap "{reference.name}" not found')
            if config_map is not None and reference.key in config_map.data:
                return config_map.data[reference.key]
            if not reference.optional:
                raise FieldError(f"couldn't find key {reference.key} in ConfigMap {namespace}/{reference.name}")
        if (secret_reference := source.secret_key_ref) is not None:
            secret = await self._references.secret(namespace, secret_reference.name, holder=uid)
            if secret is None and not secret_reference.optional:
                raise FieldError(f'secret "{secret_reference.name}" not found')
            if secret is not None and secret_reference.key in secret.data:
                return _decoded(secret.data[secret_reference.key])
            if not secret_reference.optional:
                raise FieldError(
                    f"couldn't find key {secret_reference.key} in Secret {namespace}/{secret_reference.name}"
                )
        return None

    # ── mounts ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _mounts(
        self, context: PodContext, container: Container, container_id: str, variables: dict[str, str]
    ) -> tuple[tuple[Mount, ...], Path]:
        """Volumes and the pod's own files; the file that holds the termination message."""
        pod = context.pod
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        found: list[Mount] = []
        for index, wanted in enumerate(container.volume_mounts):
            volume = volumes.get(wanted.name)
            if volume is None:
                raise FieldError(f'volume "{wanted.name}" of the container is not defined in the pod')
            source = self._volumes.path(pod.metadata.uid, volume)
            relative = wanted.sub_path or _expanded(wanted, variables)
            if not relative and volume.host_path is not None and not volume.host_path.type:
                # No type, no promise: what is missing becomes a directory, as container engines have it.
                with contextlib.suppress(FileExistsError):
                    source.mkdir(parents=True, mode=0o755)
            if relative or context.users is not None:
                own = context.users.namespace if context.users is not None else None
                source = self._volumes.sub_paths.bind(
                    pod.metadata.uid, container.name, index, source, relative, users=own
                )
            access = "ro" if wanted.read_only or _is_api_volume(volume) else "rw"
            if wanted.recursive_read_only in ("Enabled", "IfPossible"):
                access = "rro"  # with everything mounted below (KEP-3857)
            propagation = {"HostToContainer": "rslave", "Bidirectional": "rshared"}.get(
                wanted.mount_propagation, "rprivate"
            )
            destination = wanted.mount_path if wanted.mount_path.startswith("/") else f"/{wanted.mount_path}"
            found.append(Mount(destination=destination, source=str(source), options=("rbind", propagation, access)))
        taken = {mount.destination for mount in found}
        read_only = "ro" if container.security_context.read_only_root_filesystem else "rw"
        for name in ("hosts", "hostname", "resolv.conf"):
            if f"/etc/{name}" not in taken:
                source = context.directory / name
                found.append(
                    Mount(destination=f"/etc/{name}", source=str(source), options=("bind", "rprivate", read_only))
                )
        shared_memory = "/dev/shm" if pod.spec.host_ipc else str(context.shared_memory)  # noqa: S108
        if "/dev/shm" not in taken:  # noqa: S108 - the mount point's fixed name
            found.append(
                Mount(destination="/dev/shm", source=shared_memory, options=("bind", "rprivate", "rw"))  # noqa: S108
            )
        log = context.directory / "termination" / container_id
        log.parent.mkdir(exist_ok=True, mode=0o700)
        log.touch()
        log.chmod(0o666)
        if context.users is not None:
            os.chown(log, context.users.host_id, context.users.host_id)
        path = container.termination_message_path or "/dev/termination-log"
        found.append(Mount(destination=path, source=str(log), options=("bind", "rprivate", "rw")))
        # A mount below another one must come after it.
        return tuple(sorted(found, key=lambda mount: mount.destination.count("/"))), log


def _owned(document: dict[str, Any], own: PodUsers | None) -> dict[str, Any]:
    if own is None:
        return document
    mounts = [
        one | {"options": [*one["options"], *_locked(one["source"])]} if one["type"] == "bind" else one
        for one in document["mounts"]
    ]
    return oci.with_users(document | {"mounts": mounts}, str(own.namespace), host_id=own.host_id, size=IDS)


def _locked(source: str) -> list[str]:
    """The options of the mount that `source` lies on which nobody in another user namespace may take off."""
    flags = os.statvfs(source).f_flag
    named = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC, "noatime": os.ST_NOATIME}
    return [name for name, flag in named.items() if flags & flag]


def _app_armor(pod: Pod, container: Container) -> str:
    """Raises `StartRefused` for a profile that the machine has not loaded."""
    if not app_armor.is_enabled():
        return ""  # the node takes no pod that needs one then
    wanted, privileged = core_app_armor.profile_of(pod, container), container.security_context.privileged
    try:
        return core_app_armor.name(wanted, app_armor.loaded_profiles(), privileged=privileged)
    except KeyError as error:
        raise StartRefused("CreateContainerError", f"apparmor profile not found {error.args[0]}") from error


def _expanded(mount: VolumeMount, variables: dict[str, str]) -> str:
    """subPathExpr with its variables; it may not lead upwards, whatever they hold."""
    try:
        path = environment.expand_path(mount.sub_path_expr, variables)
    except KeyError as error:
        raise FieldError(f"failed to expand subPathExpr {mount.sub_path_expr!r}: missing value for {error}") from error
    if path.startswith("/"):
        raise FieldError(f"subPath {path!r} must be a relative path")
    if ".." in path.split("/"):
        raise FieldError(f"subPath {path!r} must not contain '..'")
    return path


def _is_api_volume(volume: object) -> bool:
    """configMap, secret, downwardAPI and projected volumes are always read-only inside."""
    return any(getattr(volume, name) is not None for name in ("config_map", "secret", "downward_api", "projected"))


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode(errors="surrogateescape")


def _command(container: Container, image: Image, variables: dict[str, str]) -> tuple[str, ...]:
    """command replaces the image's entrypoint and its command; args replaces its command."""
    command = tuple(environment.expand(one, variables) for one in container.command)
    args = tuple(environment.expand(one, variables) for one in container.args)
    if command:
        found = command + args
    else:
        found = image.entrypoint + (args or image.command)
    if not found:
        raise StartRefused("CreateContainerError", "no command specified: neither the image nor the container has one")
    return found


def write_pod_files(context: PodContext, mounts: Mounts, *, resolv_conf: str, cluster_domain: str) -> None:
    """hosts, hostname and resolv.conf of a pod, shared by its containers."""
    pod = context.pod
    if pod.spec.host_network:
        hosts = Path("/etc/hosts").read_text() + resolver.host_aliases(pod.spec.host_aliases)
    else:
        hosts = resolver.hosts(pod, pod_ips=context.pod_ips, cluster_domain=cluster_domain)
    context.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in (
        ("hosts", hosts),
        ("hostname", f"{resolver.kernel_hostname(pod, cluster_domain)}\n"),
        ("resolv.conf", resolv_conf),
    ):
        path = context.directory / name
        path.write_text(text)
        path.chmod(0o644)
        if context.users is not None:
            os.chown(path, context.users.host_id, context.users.host_id)
    if not mounts.is_mount(context.shared_memory):
        mounts.tmpfs(context.shared_memory, mode=0o1777, size_bytes=64 * 1024 * 1024)
