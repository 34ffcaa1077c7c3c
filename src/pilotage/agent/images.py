"""Images on a node: an OCI layout shared by all pods, one unpacked copy per image.

Stands apart from pods so that the command line can load, list and remove images without an agent. `skopeo` copies
archives (and registry images) into the layout, `umoci` unpacks them; containers get an overlay on the copy (`rootfs`).
The layout belongs to one user and is locked while it changes. Leaves out who uses an image (`image_uses`) and which
ones go when the disk fills (`collector`).

Below the directory: `layout/` (OCI image layout), `unpacked/<digest>/rootfs`, `lock`.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.agent.core import image_name
from pilotage.agent.core.image_name import ImageName
from pilotage.kit.errors import PilotageError

USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOL_TIMEOUT_S = 600.0  # a large image from a slow disk or registry
_REF = "org.opencontainers.image.ref.name"


class ImageError(PilotageError):
    """The image cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image that is present, with what its configuration says about running it."""

    name: str
    digest: str  # of the manifest; empty for the host image
    size_bytes: int
    lower: Path  # its file system
    environment: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""  # "uid[:gid]" or names
    stop_signal: str = ""

    @property
    def is_host(self) -> bool:
        return not self.digest

    @property
    def identifier(self) -> str:
        """status.containerStatuses[].imageID. The digest is the layout's: docker manifests are stored as OCI ones."""
        if "@" in self.name:
            return self.name
        return f"{self.name.rpartition(':')[0].partition('@')[0]}@{self.digest}" if self.digest else self.name


def host_image() -> Image:
    """The node's own file system; its PATH begins with the running interpreter's scripts, so `pilotage` is found."""
    scripts = sysconfig.get_path("scripts")
    return Image(
        name=f"{image_name.HOST_IMAGE}:latest",
        digest="",
        size_bytes=0,
        lower=Path("/"),
        environment=(f"PATH={scripts}:{USUAL_PATH}",),
        command=("/bin/sh",),
    )


class ImageStore:
    """The images below one directory. Blocking; call from a thread. Safe for several processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._layout = directory / "layout"
        self._unpacked = directory / "unpacked"

    def load(self, archive: Path, tag: str = "") -> str:
        """Copy a docker or OCI archive in; the name it got. `tag` renames it; needed when the archive has no name."""
        if not archive.is_file():
            raise ImageError(f"{archive}: no such file")
        kind, own_name = _describe_archive(archive)
        name = str(image_name.parse(tag or own_name)) if tag or own_name else ""
        if not name:
            raise ImageError(f"{archive}: the archive names no image; give it one with --tag")
        with self._locked():
            self._copy(f"{kind}:{archive}", name)
        return name

    def pull(self, name: ImageName, credentials: bytes | None = None) -> None:
        """Copy an image from its registry in. `credentials` are the contents of a containers-auth.json(5)."""
        # A registry on this very machine may speak plain HTTP, as container engines allow for loopback addresses.
        options = ["--src-tls-verify=false"] if image_name.is_loopback(name) else []
        with self._locked(), self._auth_file(credentials) as path:
            # Always a file, if only an empty one: the credentials of whoever started the agent are not the pod's.
            self._copy(f"docker://{name}", str(name), [*options, "--src-authfile", str(path)])

    @contextlib.contextmanager
    def _auth_file(self, credentials: bytes | None) -> Iterator[Path]:
        for stale in self._directory.glob("auth-*"):
            stale.unlink()  # of a pull that was killed: the lock says that no other one runs
        fd, name = tempfile.mkstemp(prefix="auth-", dir=self._directory)  # mode 0600
        try:
            with open(fd, "wb") as file:
                file.write(credentials or b'{"auths": {}}')
            yield Path(name)
        finally:
            os.unlink(name)

    def _copy(self, source: str, name: str, options: Sequence[str] = ()) -> None:
        target = f"oci:{self._layout}:{_ref(name)}"
        _run(["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target])

    def list(self) -> list[Image]:
        """Every image, by name."""
        images = []
        for entry in self._manifests():
            name = entry.get("annotations", {}).get(_REF)
            if name:
                with contextlib.suppress(ImageError):
                    images.append(self._describe(_unref(name), entry["digest"], entry))
        return sorted(images, key=lambda image: image.name)

    def remove(self, name: str) -> None:
        """Forget an image; its blobs go with the last name that uses them."""
        wanted = str(image_name.parse(name))
        with self._locked():
            entry = self._entry(wanted)
            if entry is None:
                raise ImageError(f"no image {wanted}")
            _run(["umoci", "rm", "--image", f"{self._layout}:{_ref(wanted)}"])
            _run(["umoci", "gc", "--layout", str(self._layout)])
            if not any(other["digest"] == entry["digest"] for other in self._manifests()):
                shutil.rmtree(self._unpacked / plain(entry["digest"]), ignore_errors=True)

    def digests(self) -> dict[str, str]:
        """Every manifest that takes room, with one of its names: also those that lost theirs to a newer pull."""
        found = {entry["digest"]: "" for entry in self._manifests()}
        for entry in self._manifests():
            found[entry["digest"]] = _unref(entry.get("annotations", {}).get(_REF, "")) or found[entry["digest"]]
        for path in self._unpacked.iterdir() if self._unpacked.is_dir() else ():
            algorithm, _, value = path.name.partition("-")
            if value and not path.name.endswith(".new"):
                found.setdefault(f"{algorithm}:{value}", "")
        return found

    def size(self, digest: str) -> int:
        """Bytes on disk: its blobs and its unpacked copy. Walks the copy."""
        total = 0
        for entry in self._manifests():
            if entry["digest"] == digest:
                with contextlib.suppress(ImageError):
                    total = self._describe("", digest, entry).size_bytes
        for parent, _, names in os.walk(self._unpacked / plain(digest)):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(parent, name)).st_blocks * 512
        return total

    def discard(self, digest: str, guard: Callable[[], contextlib.AbstractContextManager[bool]]) -> bool:
        """Remove an image under all its names, unless `guard` says that it is in use; whether it was removed.

        While `guard` holds, nobody takes it up: its unpacked copy is put aside at once, and deleted afterwards.
        """
        with self._locked():
            unpacked = self._unpacked / plain(digest)
            aside = unpacked.with_name(f"{unpacked.name}.new")
            with guard() as free:
                if not free:
                    return False
                shutil.rmtree(aside, ignore_errors=True)
                with contextlib.suppress(FileNotFoundError):
                    unpacked.rename(aside)
            for entry in self._manifests():
                name = entry.get("annotations", {}).get(_REF)
                if entry["digest"] == digest and name:
                    _run(["umoci", "rm", "--image", f"{self._layout}:{name}"])
            if (self._layout / "index.json").exists():
                _run(["umoci", "gc", "--layout", str(self._layout)])
            shutil.rmtree(aside, ignore_errors=True)
        return True

    def find(self, name: ImageName) -> Image | None:
        """The image of that name or digest, if it is here (not necessarily unpacked)."""
        if name.is_host:
            return host_image()
        entry = self._entry(str(name), name.digest)
        return self._describe(str(name), entry["digest"], entry) if entry is not None else None

    def unpack(self, image: Image) -> None:
        """Make `image.lower` exist; once per digest, atomically."""
        if image.is_host or image.lower.is_dir():
            return
        with self._locked():
            if image.lower.is_dir():
                return
            final = image.lower.parent
            working = final.with_name(final.name + ".new")
            shutil.rmtree(working, ignore_errors=True)
            self._unpacked.mkdir(parents=True, exist_ok=True, mode=0o700)
            rootless = ["--rootless"] if not _may_own_files() else []
            # The manifest is found by name; any name with this digest will do.
            name = next(
                entry["annotations"][_REF]
                for entry in self._manifests()
                if entry["digest"] == image.digest and _REF in entry.get("annotations", {})
            )
            _run(["umoci", "unpack", *rootless, "--image", f"{self._layout}:{name}", str(working)])
            working.rename(final)

    # ── the layout ──────────────────────────────────────────────────────────────────────────────────────────────

    def _manifests(self) -> tuple[dict[str, Any], ...]:
        """The entries of the layout's index; umoci writes null for none."""
        try:
            index: dict[str, Any] = json.loads((self._layout / "index.json").read_bytes())
        except FileNotFoundError:
            return ()
        except ValueError as error:
            raise ImageError(f"image store is damaged: {self._layout / 'index.json'} is no JSON") from error
        return tuple(index.get("manifests") or ())

    def _entry(self, name: str, digest: str = "") -> dict[str, Any] | None:
        for entry in self._manifests():
            if entry["digest"] == digest or _unref(entry.get("annotations", {}).get(_REF, "")) == name:
                return dict(entry)
        return None

    def _blob(self, digest: str) -> dict[str, Any]:
        algorithm, _, value = digest.partition(":")
        try:
            blob: dict[str, Any] = json.loads((self._layout / "blobs" / algorithm / value).read_bytes())
        except (OSError, ValueError) as error:
            raise ImageError(f"image store is damaged: blob {digest} cannot be read") from error
        return blob

    def _describe(self, name: str, digest: str, entry: dict[str, Any]) -> Image:
        manifest = self._blob(digest)
        if "config" not in manifest:
            raise ImageError(f"{name} is an index of images, not an image")
        config = self._blob(manifest["config"]["digest"]).get("config") or {}
        return Image(
            name=name,
            digest=digest,
            size_bytes=sum(layer.get("size", 0) for layer in manifest.get("layers", ())) + entry.get("size", 0),
            lower=self._unpacked / plain(digest) / "rootfs",
            environment=tuple(config.get("Env") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            working_directory=config.get("WorkingDir") or "",
            user=config.get("User") or "",
            stop_signal=config.get("StopSignal") or "",
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._directory / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def image_load(directory: Path, archive: Path, tag: str = "") -> str:
    """Load an archive into the store at `directory`; returns the image's full name."""
    return ImageStore(directory).load(archive, tag)


def image_list(directory: Path) -> list[Image]:
    """The host image, then those of the store at `directory`."""
    return [host_image(), *ImageStore(directory).list()]


def image_remove(directory: Path, name: str) -> None:
    """Remove one image from the store at `directory`; raises `ImageError` if there is none."""
    ImageStore(directory).remove(name)


def _describe_archive(archive: Path) -> tuple[str, str]:
    """(skopeo's transport, the first name inside or "")."""
    import tarfile

    try:
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
            if "manifest.json" in names:
                member = tar.extractfile("manifest.json")
                manifest = json.loads(member.read()) if member is not None else []
                tags = manifest[0].get("RepoTags") or [""]
                return "docker-archive", str(tags[0])
            if "index.json" in names:
                member = tar.extractfile("index.json")
                index = json.loads(member.read()) if member is not None else {}
                first = (index.get("manifests") or [{}])[0].get("annotations", {})
                return "oci-archive", str(first.get("io.containerd.image.name") or first.get(_REF) or "")
    except (tarfile.TarError, OSError, ValueError, LookupError) as error:
        raise ImageError(f"{archive}: not an image archive ({error})") from error
    raise ImageError(f"{archive}: neither a docker nor an OCI archive")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TOOL_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed (apt-get install {command[0]})") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{command[0]} did not finish within {TOOL_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError(_sentence(lines[-1]) if lines else f"{command[0]} failed with exit code {done.returncode}")


def _sentence(line: str) -> str:
    """The message of a line in logfmt, or the line; bounded."""
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return (found[1].replace('\\"', '"') if found else line)[:500]


def _may_own_files() -> bool:
    """Whether files may be given to any user: root outside a user namespace with a single id."""
    if os.geteuid() != 0:
        return False
    try:
        ranges = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return True
    return int(ranges[2]) > 65535 if len(ranges) == 3 else True


def _ref(name: str) -> str:
    """umoci accepts few characters in a layout's reference, and a name has more: kept as hexadecimal digits."""
    return name.encode().hex()


def _unref(ref: str) -> str:
    try:
        return bytes.fromhex(ref).decode()
    except ValueError:
        return ref


def plain(digest: str) -> str:
    """A digest as a name of a directory."""
    return digest.replace(":", "-")
