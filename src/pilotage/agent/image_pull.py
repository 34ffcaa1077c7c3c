"""The image of a container: found on the node, or fetched as its policy says, with the pod's credentials.

Stands apart from `container_setup` because it is the one step that talks to the world outside the cluster. Called
before a container is prepared; raises `StartRefused` with the API's reasons. Credentials pass through a file that only
this user can read and that goes with the pull, never through arguments or the environment.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from pilotage.agent.core import image_name, pull_secrets
from pilotage.agent.core.image_name import ImageName, InvalidImageNameError, Pull
from pilotage.agent.errors import StartRefused
from pilotage.agent.images import Image, ImageError, ImageStore
from pilotage.agent.references import References
from pilotage.api.core_v1 import Container, Pod, Secret

Tell = Callable[[str, str, str], None]


class ImagePuller:
    """Images for the containers of this node."""

    def __init__(self, *, images: ImageStore, references: References) -> None:
        self._images = images
        self._references = references

    async def image(self, pod: Pod, container: Container, tell: Tell) -> Image:
        """The image, pulled if the policy says so and unpacked; raises `StartRefused`."""
        try:
            name = image_name.parse(container.image)
        except InvalidImageNameError as error:
            message = f'Failed to apply default image tag "{container.image}": {error}'
            tell("Warning", "InspectFailed", message)
            raise StartRefused("InvalidImageName", message) from error
        found = self._images.find(name)
        match image_name.decide(name, container.image_pull_policy, present=found is not None):
            case Pull.REFUSE:
                message = f'Container image "{container.image}" is not present with pull policy of Never'
                tell("Warning", "ErrImageNeverPull", message)
                raise StartRefused("ErrImageNeverPull", message)
            case Pull.FETCH:
                found = await self._pull(pod, container.image, name, tell)
            case Pull.USE:
                tell("Normal", "Pulled", f'Container image "{container.image}" already present on machine')
        if found is None:
            raise StartRefused("ErrImagePull", f'image "{container.image}" vanished while it was being used')
        if not found.is_host and not found.lower.is_dir():
            try:
                await asyncio.to_thread(self._images.unpack, found)
            except ImageError as error:
                raise StartRefused("CreateContainerError", f"cannot unpack image: {error}") from error
        return found

    async def _pull(self, pod: Pod, shown: str, name: ImageName, tell: Tell) -> Image | None:
        tell("Normal", "Pulling", f'Pulling image "{shown}"')
        began = time.monotonic()
        try:
            credentials = pull_secrets.auth_file(await self._secrets(pod, tell))
            await asyncio.to_thread(self._images.pull, name, credentials)
            found = self._images.find(name)
        except ImageError as error:
            message = f'failed to pull and unpack image "{name}": {error}'
            tell("Warning", "Failed", f'Failed to pull image "{shown}": {message}')
            tell("Warning", "Failed", "Error: ErrImagePull")
            raise StartRefused("ErrImagePull", message) from error
        took = f"{time.monotonic() - began:.3f}s"
        size = found.size_bytes if found is not None else 0
        message = f'Successfully pulled image "{shown}" in {took} ({took} including waiting). Image size: {size} bytes.'
        tell("Normal", "Pulled", message)
        return found

    async def _secrets(self, pod: Pod, tell: Tell) -> list[Secret]:
        """Those that exist; the others are told, and the pull tried without them, as the kubelet does."""
        found, missing = [], []
        for reference in pod.spec.image_pull_secrets:
            secret = None
            with contextlib.suppress(TimeoutError):
                secret = await self._references.secret(pod.metadata.namespace, reference.name, holder=pod.metadata.uid)
            if secret is None:
                missing.append(reference.name)
            else:
                found.append(secret)
        if missing:
            message = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            tell("Warning", "FailedToRetrieveImagePullSecret", message)
        return found
