"""Where weights and data come from: a local folder, else the cache, else the hub; one fast, clear error when none has them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from experiments.errors import HubUnavailable

PROBE_SECONDS = 3.0


def locate(repo: str, path: str | None, *, probe: str, option: str, kind: str = "model", offline: bool = False) -> str:
    """Says where a repository can be loaded from, without importing torch and in a few seconds at most.

    Args:
        repo: hub repository, `owner/name` or `name`.
        path: local folder; wins over cache and hub when given.
        probe: a file of the repository whose presence in the cache means that it was downloaded.
        option: configuration key that takes a local folder, named in the error.
        kind: "model" or "dataset".
        offline: never use the network.

    Returns:
        A folder, or `repo` itself where the library's own cache or download will find it.

    Raises:
        HubUnavailable: not there; the message names repository, cache folder, download command and both options.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise HubUnavailable(f"{option}={path}: no such folder")
        go_offline()
        return str(folder)
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repo, probe, repo_type=kind), str):
        if not reachable(constants.ENDPOINT, offline):
            go_offline()
        return repo
    if reachable(constants.ENDPOINT, offline):
        return repo
    download = f"hf download {repo}" + (" --repo-type dataset" if kind == "dataset" else "")
    reason = "network use is switched off" if offline or constants.HF_HUB_OFFLINE else "the hub does not answer"
    raise HubUnavailable(
        f"{kind} {repo} is not here and {reason}",
        [
            f"looked in the cache {constants.HF_HUB_CACHE}",
            f"with a network: {download}",
            f"with a copy on this machine: {option}=FOLDER",
            *(["without weights, to rehearse sizes only: model.pretrained=false"] if kind == "model" else []),
        ],
    )


def reachable(endpoint: str, offline: bool = False) -> bool:
    """True if a TCP connection to the hub opens within three seconds; False at once when offline is asked for."""
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        return False
    target = urlparse(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or endpoint)
    port = target.port or (443 if target.scheme == "https" else 80)
    try:
        with socket.create_connection((target.hostname or "", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def go_offline() -> None:
    """Stops the hub libraries from asking the network in this process: what the run needs is here already."""
    import huggingface_hub.constants

    # The variable is read at import, so a library imported earlier needs its constant flipped and a later one the variable.
    os.environ["HF_HUB_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True
