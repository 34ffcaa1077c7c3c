"""Which numbers a container's processes run with: from the specification, and from the image's passwd and group files.

Stands apart because everything that may be wrong about a user is said here. Called by `container_setup`; raises
`StartRefused` with the kubelet's words. Names are looked up in the image, never on the node.
"""

from pathlib import Path

from pilotage.agent.core.oci import User
from pilotage.agent.errors import StartRefused
from pilotage.agent.images import Image
from pilotage.api.core_v1 import Container, Pod


def resolve(pod: Pod, container: Container, image: Image) -> User:
    """runAsUser and runAsGroup of the container, of the pod, then what the image says."""
    own, shared = container.security_context, pod.spec.security_context
    uid = own.run_as_user if own.run_as_user is not None else shared.run_as_user
    gid = own.run_as_group if own.run_as_group is not None else shared.run_as_group
    name, _, group = image.user.partition(":")
    account = _account(image, str(uid) if uid is not None else name)
    if uid is None:
        uid = account[0]
    if gid is None:
        if group:
            gid = int(group) if group.isdigit() else _group(image, group)
        else:
            gid = account[1]
    _check_not_root(pod, container, image, uid)
    return User(uid=uid, gid=gid, additional_gids=_additional_groups(pod, image, uid, gid))


def _check_not_root(pod: Pod, container: Container, image: Image, uid: int) -> None:
    own, shared = container.security_context, pod.spec.security_context
    must_not_be_root = own.run_as_non_root if own.run_as_non_root is not None else shared.run_as_non_root
    if not must_not_be_root:
        return
    chosen = own.run_as_user if own.run_as_user is not None else shared.run_as_user
    name = image.user.partition(":")[0]
    if chosen == 0:
        what = "container's runAsUser breaks non-root policy"
    elif chosen is None and name and not name.isdigit():
        # A name means what the image's passwd file says, and the image may say anything.
        what = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
    elif chosen is None and uid == 0:
        what = "container has runAsNonRoot and image will run as root"
    else:
        return
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'
    raise StartRefused("CreateContainerConfigError", f"{what} {where}")


def _additional_groups(pod: Pod, image: Image, uid: int, gid: int) -> tuple[int, ...]:
    """supplementalGroups and fsGroup; with policy Merge also the user's groups in the image's /etc/group (KEP-3619)."""
    shared = pod.spec.security_context
    found = {gid, *shared.supplemental_groups}
    if shared.fs_group is not None:
        found.add(shared.fs_group)
    if shared.supplemental_groups_policy != "Strict":
        names = {
            line.split(":")[0] for line in _lines(image.lower / "etc/passwd") if line.split(":")[2:3] == [str(uid)]
        }
        for line in _lines(image.lower / "etc/group"):
            parts = line.split(":")
            if len(parts) >= 4 and parts[2].isdigit() and names & set(parts[3].split(",")):
                found.add(int(parts[2]))
    return tuple(sorted(found))


def check_own(user: User, ids: int) -> None:
    """A pod with users of its own has so many (KEP-127)."""
    for kind, number in (("user", user.uid), ("group", user.gid), *(("group", one) for one in user.additional_gids)):
        if number >= ids:
            message = f"{kind} {number} does not exist in a pod with hostUsers: false, which has 0 to {ids - 1}"
            raise StartRefused("CreateContainerConfigError", message)


def check_mapped(user: User) -> None:
    """In a user namespace only mapped numbers exist; the kernel's own answer would be "invalid argument"."""
    for kind, number in (("user", user.uid), ("group", user.gid)):
        ranges = [line.split() for line in _lines(Path(f"/proc/self/{kind[0]}id_map"))]
        if not any(int(first) <= number < int(first) + int(count) for first, _, count in ranges):
            message = f"{kind} {number} does not exist in this user namespace: run the cluster as root, or use {kind} 0"
            raise StartRefused("CreateContainerConfigError", message)


def _account(image: Image, user: str) -> tuple[int, int]:
    """(uid, primary gid) by name or number from the image's /etc/passwd."""
    if not user or user in ("0", "root"):
        return 0, 0
    for line in _lines(image.lower / "etc/passwd"):
        parts = line.split(":")
        if len(parts) >= 4 and user in (parts[0], parts[2]):
            return int(parts[2]), int(parts[3])
    if user.isdigit():
        return int(user), 0
    raise StartRefused("CreateContainerError", f"unable to find user {user}: no matching entries in passwd file")


def _group(image: Image, group: str) -> int:
    for line in _lines(image.lower / "etc/group"):
        parts = line.split(":")
        if len(parts) >= 3 and parts[0] == group:
            return int(parts[2])
    raise StartRefused("CreateContainerError", f"unable to find group {group}: no matching entries in group file")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
