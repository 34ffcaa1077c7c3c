"""Volumes of pods: directories on the node, filled and kept current.

Stands apart because mounting is slow, may fail and is repeated, while containers only need a path. `core.payload`
decides what the files are; here they are written, owned and replaced atomically. Leaves out persistent volumes.

Below the data directory: `pods/<uid>/volumes/<name>`.
"""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilotage.agent.core import fields, payload, qos, timestamps
from pilotage.agent.core.fields import NodeFacts
from pilotage.agent.core.payload import Payload
from pilotage.agent.errors import MountFailure
from pilotage.agent.mounts import Mounts
from pilotage.agent.references import References
from pilotage.agent.sub_paths import SubPaths
from pilotage.api import quantity
from pilotage.api.codec import encode
from pilotage.api.core_v1 import (
    DownwardAPIVolumeFile,
    HostPathVolumeSource,
    KeyToPath,
    Pod,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.errors import PilotageError

TOKEN_AGE_S_MAX = 24 * 3600.0  # and however long it lives
TOKEN_REFRESH_SHARE = 0.8  # of its life after which a token is replaced, as the kubelet does


class _UnfitError(PilotageError):
    """A hostPath is not what its type promises."""


@dataclass(slots=True)
class _Token:
    text: str
    refresh_at: float


class Volumes:
    """The volumes of all pods of this node."""

    def __init__(
        self,
        *,
        pods_dir: Path,
        client: Client,
        references: References,
        node: Callable[[], NodeFacts],
        mounts: Mounts,
        sub_paths: SubPaths,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._mounts = mounts
        self.sub_paths = sub_paths
        self._pods_dir = pods_dir
        self._client = client
        self._references = references
        self._node = node
        self._clock = clock
        self._tokens: dict[tuple[str, str, str], _Token] = {}

    def path(self, uid: str, volume: Volume) -> Path:
        """Where the volume is on the node."""
        if volume.host_path is not None:
            return Path(volume.host_path.path)
        return self._pods_dir / uid / "volumes" / volume.name

    async def mount(self, pod: Pod) -> None:
        """Prepare every volume; may be repeated, also to bring contents up to date. Raises `MountFailure`."""
        for volume in pod.spec.volumes:
            try:
                await self._mount(pod, volume)
            except (PilotageError, OSError, TimeoutError) as error:
                if isinstance(error, MountFailure):
                    raise
                text = str(error) or "timed out waiting for the API server"
                raise MountFailure(f'MountVolume.SetUp failed for volume "{volume.name}" : {text}') from error

    def refresh_at(self, uid: str) -> float | None:
        """When a token of this pod should be replaced by calling `mount` again; None if it has none."""
        return min((token.refresh_at for key, token in self._tokens.items() if key[0] == uid), default=None)

    def unmount(self, uid: str) -> None:
        """Take every volume of the pod away, with its contents (not a hostPath's). Blocking."""
        self.sub_paths.release(uid)
        directory = self._pods_dir / uid / "volumes"
        if directory.is_dir():
            for path in directory.iterdir():
                self._mounts.detach(path)
            shutil.rmtree(directory, ignore_errors=True)
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]

    async def _mount(self, pod: Pod, volume: Volume) -> None:
        path = self.path(pod.metadata.uid, volume)
        if volume.host_path is not None:
            _check_host_path(volume.host_path)
            return
        if volume.persistent_volume_claim is not None:
            raise MountFailure(f'volume "{volume.name}": persistentVolumeClaim is not supported by this node')
        gid = pod.spec.security_context.fs_group
        if volume.empty_dir is not None:
            await asyncio.to_thread(_make_empty_dir, self._mounts, path, pod, volume)
            return
        files = await self._payload(pod, volume)
        # What is secret, or may be, is never written to a disk.
        in_memory = volume.config_map is None
        await asyncio.to_thread(self._write, path, files, gid, in_memory)

    def _write(self, path: Path, files: Payload, gid: int | None, in_memory: bool) -> None:
        if in_memory and not self._mounts.is_mount(path):
            self._mounts.tmpfs(path)
        write_payload(path, files, gid)

    async def _payload(self, pod: Pod, volume: Volume) -> Payload:
        """The files of the volume. Raises `MountFailure` for a type that is not one of these."""
        if (config_map := volume.config_map) is not None:
            return await self._config_map(
                pod, config_map.name, config_map.items, config_map.default_mode, optional=config_map.optional
            )
        if (secret := volume.secret) is not None:
            return await self._secret(
                pod, secret.secret_name, secret.items, secret.default_mode, optional=secret.optional
            )
        if (downward := volume.downward_api) is not None:
            return self._downward(pod, downward.items, downward.default_mode)
        if (projected := volume.projected) is not None:
            files: Payload = {}
            for source in projected.sources:
                files |= await self._project(pod, volume.name, source, projected.default_mode)
            return files
        raise MountFailure(f'volume "{volume.name}": its type is not supported by this node')

    async def _project(self, pod: Pod, volume: str, source: VolumeProjection, mode: int) -> Payload:
        if (one := source.config_map) is not None:
            return await self._config_map(pod, one.name, one.items, mode, optional=one.optional)
        if (secret := source.secret) is not None:
            return await self._secret(pod, secret.name, secret.items, mode, optional=secret.optional)
        if source.downward_api is not None:
            return self._downward(pod, source.downward_api.items, mode)
        if (token := source.service_account_token) is not None:
            text = await self._token(pod, volume, token)
            # KEP-1205: for the pod's one user or its group alone; for everybody in the pod if there is neither.
            uid = _only_user(pod)
            owned = uid is not None or pod.spec.security_context.fs_group is not None
            file = payload.File(content=text.encode(), mode=0o600 if owned else mode, uid=uid)
            return {payload.safe_path(token.path): file}
        raise MountFailure(f'volume "{volume}": a source is of a type that is not supported by this node')

    async def _config_map(
        self, pod: Pod, name: str, items: tuple[KeyToPath, ...], mode: int, *, optional: bool
    ) -> Payload:
        namespace = pod.metadata.namespace
        found = await self._references.config_map(namespace, name, holder=pod.metadata.uid)
        if found is None:
            if optional:
                return {}
            raise payload.PayloadError(f'configmap "{name}" not found')
        data = payload.config_map_data(found)
        return payload.from_keys(data, items, default_mode=mode, optional=optional, source="configmap")

    async def _secret(self, pod: Pod, name: str, items: tuple[KeyToPath, ...], mode: int, *, optional: bool) -> Payload:
        namespace = pod.metadata.namespace
        found = await self._references.secret(namespace, name, holder=pod.metadata.uid)
        if found is None:
            if optional:
                return {}
            raise payload.PayloadError(f'secret "{name}" not found')
        data = payload.secret_data(found)
        return payload.from_keys(data, items, default_mode=mode, optional=optional, source="secret")

    def _downward(self, pod: Pod, items: tuple[DownwardAPIVolumeFile, ...], mode: int) -> Payload:
        node = self._node()

        def value(item: DownwardAPIVolumeFile) -> str:
            if item.field_ref is not None:
                return fields.resolve(pod, item.field_ref, node=node, pod_ips=())
            if item.resource_field_ref is not None:
                container = item.resource_field_ref.container_name
                return fields.resolve_resource(pod, item.resource_field_ref, container=container, node=node)
            return ""

        return payload.from_downward(items, value, default_mode=mode)

    async def _token(self, pod: Pod, volume: str, wanted: ServiceAccountTokenProjection) -> str:
        """A token bound to the pod (KEP-1205), kept until most of its life is over."""
        key = (pod.metadata.uid, volume, wanted.path)
        now = self._clock.wall().timestamp()
        known = self._tokens.get(key)
        if known is not None and now < known.refresh_at:
            return known.text
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [wanted.audience] if wanted.audience else [],
                "expirationSeconds": wanted.expiration_seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.metadata.name,
                    "uid": pod.metadata.uid,
                },
            },
        }
        account = pod.spec.service_account_name or "default"
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/serviceaccounts/{account}/token"
        try:
            answer = msgspec.json.decode(await self._client.request("POST", path, body=encode(body)), type=_TokenAnswer)
        except (ApiError, ConnectionFailed) as error:
            raise MountFailure(f"failed to fetch token: {error}") from error
        expires_at = timestamps.from_text(answer.status.expiration_timestamp)
        life_s = min((expires_at - now) * TOKEN_REFRESH_SHARE, TOKEN_AGE_S_MAX)
        self._tokens[key] = _Token(text=answer.status.token, refresh_at=now + life_s)
        return answer.status.token


class _TokenStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str
    expiration_timestamp: str


class _TokenAnswer(msgspec.Struct, frozen=True):
    status: _TokenStatus


def _only_user(pod: Pod) -> int | None:
    """The user that every container says it runs as; None if they do not say, or not the same."""
    shared = pod.spec.security_context.run_as_user
    users = {
        shared if one.security_context.run_as_user is None else one.security_context.run_as_user
        for one in (*pod.spec.init_containers, *pod.spec.containers)
    }
    return users.pop() if len(users) == 1 else None


def write_payload(directory: Path, files: Payload, gid: int | None) -> bool:
    """Make the volume hold exactly `files`; readers see all of the old or all of the new. False if nothing changed.

    As the kubelet does it: files live in a directory `..<time>`, `..data` points to it and is swapped by rename(2);
    what users open are links through `..data`, which stay the same.
    """
    if gid is not None:
        # Whoever is in the group may read, whatever the mode says (fsGroup).
        files = {name: dataclasses.replace(one, mode=one.mode | 0o440) for name, one in files.items()}
    if _current_payload(directory) == {name: (one.content, one.mode) for name, one in files.items()}:
        return False
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    number = 0
    while (fresh := directory / f"..{number}").exists():
        number += 1
    fresh.mkdir()
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        os.chown(path, -1 if file.uid is None else file.uid, -1 if gid is None else gid)
        path.chmod(file.mode)
    data = directory / "..data"
    before = Path(os.readlink(data)).name if data.is_symlink() else ""
    link = directory / "..data.new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(data)
    wanted = {name.split("/")[0] for name in files}
    for name in wanted:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if before:
        shutil.rmtree(directory / before, ignore_errors=True)
    return True


def _current_payload(directory: Path) -> dict[str, tuple[bytes, int]] | None:
    """path → (content, mode); None before the first time."""
    data = directory / "..data"
    if not data.is_symlink():
        return None
    root = data.resolve()
    return {
        str(path.relative_to(root)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in root.rglob("*")
        if path.is_file()
    }


def _make_empty_dir(mounts: Mounts, path: Path, pod: Pod, volume: Volume) -> None:
    """Once: what the containers later do to the directory is theirs."""
    gid, source = pod.spec.security_context.fs_group, volume.empty_dir
    assert source is not None
    if source.medium not in ("", "Memory"):
        raise MountFailure(f'volume "{volume.name}": storage medium "{source.medium}" is not supported by this node')
    if source.medium == "Memory":
        if mounts.is_mount(path):
            return
        # What lies in it is charged to the pod, whose limit it cannot exceed.
        sizes = [qos.pod_limits(pod).get("memory", 0), quantity.whole(source.size_limit or "0")]
        mounts.tmpfs(path, mode=0o777, size_bytes=min(filter(None, sizes), default=0))
    else:
        if path.is_dir():
            return
        path.mkdir(parents=True)
        path.chmod(0o777)
    if gid is not None:
        os.chown(path, -1, gid)
        # New files inherit the group: setgid on the directory.
        path.chmod(0o2777)


_CALLED = {
    "Directory": "directory",
    "DirectoryOrCreate": "directory",
    "File": "file",
    "FileOrCreate": "file",
    "Socket": "socket file",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}


def _check_host_path(source: HostPathVolumeSource) -> None:
    """The type's promise; creates what the `…OrCreate` types ask for."""
    path = Path(source.path)
    match source.type:
        case "DirectoryOrCreate":
            with contextlib.suppress(FileExistsError):  # the check says it better
                path.mkdir(parents=True, mode=0o755)
        case "FileOrCreate":
            path.touch(exist_ok=True, mode=0o644)
    checks: dict[str, Callable[[], bool]] = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }
    check = checks.get(source.type)
    if check is not None and not check():
        raise _UnfitError(f"hostPath type check failed: {source.path} is not a {_CALLED[source.type]}")
