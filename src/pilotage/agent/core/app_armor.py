"""Which AppArmor profile a container runs under: what its pod says, as a name that the kernel knows.

Stands apart because admission and the document ask the same. Source: "Restrict a Container's Access to Resources with
AppArmor" in the Kubernetes documentation. Leaves out loading profiles: they are the machine's.
"""

from collections.abc import Collection

from pilotage.agent.core.pod_spec import all_containers
from pilotage.api.core_v1 import AppArmorProfile, Container, Pod

NOT_THERE = "Cannot enforce AppArmor: AppArmor is not enabled on the host"
# Of before the field (Kubernetes 1.30); followed by a container's name.
ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
# What container engines load for containers that ask for nothing, in the order of preference.
DEFAULT_PROFILES = ("pilotage-default", "cri-containerd.apparmor.d", "crio-default", "docker-default")


def profile_of(pod: Pod, container: Container) -> AppArmorProfile | None:
    """The container's own, the annotation's, the pod's; None when nobody asked for any."""
    own = container.security_context.app_armor_profile
    if own is not None:
        return own
    return _annotated(pod.metadata.annotations.get(ANNOTATION + container.name, "")) or (
        pod.spec.security_context.app_armor_profile
    )


def is_asked_for(pod: Pod) -> bool:
    """Whether the pod must not run where the kernel cannot enforce a profile."""
    wanted = (profile_of(pod, container) for container in all_containers(pod))
    return any(one is not None and one.type != "Unconfined" for one in wanted)


def name(profile: AppArmorProfile | None, loaded: Collection[str], *, privileged: bool = False) -> str:
    """The profile's name in the kernel; empty for none. Raises `KeyError` for one that is not loaded.

    A container that asks for nothing gets the default one if there is any, unless it is privileged.
    """
    default = next((one for one in DEFAULT_PROFILES if one in loaded), "")
    if profile is None:
        return "" if privileged else default
    match profile.type:
        case "RuntimeDefault":
            if not default:
                raise KeyError("RuntimeDefault")
            return default
        case "Localhost":
            if profile.localhost_profile not in loaded:
                raise KeyError(profile.localhost_profile)
            return profile.localhost_profile
    return ""


def names_in(text: str) -> frozenset[str]:
    """The loaded profiles from the text of /sys/kernel/security/apparmor/profiles: lines `name (mode)`."""
    return frozenset(line.rpartition(" (")[0] for line in text.splitlines() if line.endswith(")"))


def _annotated(value: str) -> AppArmorProfile | None:
    kind, _, rest = value.partition("/")
    if value == "runtime/default":
        return AppArmorProfile(type="RuntimeDefault")
    if kind == "localhost" and rest:
        return AppArmorProfile(type="Localhost", localhost_profile=rest)
    return AppArmorProfile(type="Unconfined") if value == "unconfined" else None
