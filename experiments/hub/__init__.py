"""Source of weights and data: a local folder, else hub and cache.

If none of them has what the run needs, one clear error is raised within seconds.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import ParseResult, urlparse

from experiments.errors import DataError, HubUnavailable

PROBE_SECONDS = 3.0
REMEMBER_SECONDS = 60.0
"""Time for which a hub that did not answer is not asked again.

A sweep waits once, not once per cell.
"""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Files that a run reads from a repository."""

    repo: str
    """`owner/name` or `name`."""
    kind: str = "model"
    """model or dataset."""
    revision: str | None = None
    """Branch; None for the main one."""
    patterns: tuple[str, ...]
    """Shell patterns of whole paths."""


_PORTS = {"https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
_silent_since: dict[tuple[str, int], float] = {}
_switched_off_here = False


def locate(
    repo: str,
    path: str | None,
    *,
    probe: str,
    option: str,
    kind: str = "model",
    revision: str | None = None,
    offline: bool = False,
) -> str:
    """Find where a repository can be loaded from, without importing torch and in a few seconds.

    Args:
        repo: hub repository, `owner/name` or `name`.
        path: local folder; takes precedence over cache and hub, and is read without network.
        probe: file of the repository; if it is in the cache, the repository was downloaded.
        option: configuration key that takes a local folder, named in the error.
        kind: "model" or "dataset".
        revision: branch of the repository; None for its main one.
        offline: never use the network.

    Returns:
        A folder, or `repo` itself where the library's own cache or download will find it.

    Raises:
        HubUnavailable: not there; the message names repository, cache folder, download command and
            both options.
    """
    if path is not None:
        folder = Path(os.path.expanduser(path))
        if not folder.is_dir():
            raise HubUnavailable(f"{option}={path}: no such folder")
        return str(folder)
    from huggingface_hub import constants, try_to_load_from_cache

    if is_reachable(constants.ENDPOINT, offline):
        _go_online()
        return repo
    proxy = find_proxy_fault(constants.ENDPOINT)
    asked_for = offline or (constants.HF_HUB_OFFLINE and not _switched_off_here)
    if isinstance(try_to_load_from_cache(repo, probe, repo_type=kind, revision=revision), str):
        go_offline()
        return repo
    download = f"hf download {repo}" + (" --repo-type dataset" if kind == "dataset" else "")
    download += f" --revision {revision}" if revision is not None else ""
    raise HubUnavailable(
        f"{kind} {repo} was not found locally, and "
        + ("network use is disabled" if asked_for else "the hub does not answer"),
        [
            *([proxy] if not asked_for and proxy is not None else []),
            f"looked in the cache {constants.HF_HUB_CACHE}",
            f"with a network: {download}",
            f"with a copy on this machine: {option}=FOLDER",
            *(
                ["random weights, for smoke tests only: model.pretrained=false"]
                if kind == "model"
                else []
            ),
        ],
    )


def locate_local(
    repo: str | None, path: str | None, *, kind: str = "model", revision: str | None = None
) -> Path | None:
    """Return the folder that `locate` leads to if it is on this machine, else None.

    Args as of `locate`. No network is used and nothing raises.
    """
    if path is not None:
        folder = Path(os.path.expanduser(path))
        return folder if folder.is_dir() else None
    if repo is None:
        return None
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / "--".join([f"{kind}s", *repo.split("/")])
    try:
        commit = (cached / "refs" / (revision or constants.DEFAULT_REVISION)).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    folder = cached / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def fetch(download: Download) -> Path:
    """Return the folder of the files, downloading them if they are not in the cache.

    Raises:
        DataError: the download failed, or, without a network, files are missing in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            download.repo,
            repo_type=download.kind,
            revision=download.revision,
            allow_patterns=list(download.patterns),
        )
    except Exception as error:  # httpx, the hub library and the system raise dozens of kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{download.kind} {download.repo}: the download failed", [reason]
        ) from error
    return Path(folder)


def is_reachable(endpoint: str, offline: bool = False) -> bool:
    """Return True if a connection to the hub (or its proxy) opens within three seconds.

    Return False at once if offline is set, here or by HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants

    if offline or (constants.HF_HUB_OFFLINE and not _switched_off_here):
        return False
    if find_proxy_fault(endpoint) is not None:
        return False
    target = _find_proxy(endpoint) or urlparse(endpoint)
    address = target.hostname or "", target.port or _PORTS.get(target.scheme, 80)
    if time.monotonic() - _silent_since.get(address, -REMEMBER_SECONDS) < REMEMBER_SECONDS:
        return False
    if _accepts_connections(address):
        return True
    _silent_since[address] = time.monotonic()
    return False


def find_proxy_fault(endpoint: str) -> str | None:
    """Return why the environment's proxy cannot be used; None if it can or is not set."""
    proxy = _find_proxy(endpoint)
    if proxy is None or not proxy.scheme.startswith("socks") or find_spec("socksio"):
        return None
    return (
        f"the proxy {proxy.scheme}://{proxy.hostname} needs a package that is not installed: "
        "pip install 'httpx[socks]'"
    )


def _find_proxy(endpoint: str) -> ParseResult | None:
    from urllib.request import getproxies, proxy_bypass

    target, proxies = urlparse(endpoint), getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.hostname or ""):
        return None
    return urlparse(proxy if "://" in proxy else f"http://{proxy}")


def _accepts_connections(address: tuple[str, int]) -> bool:
    # In a thread, because the socket's time limit bounds neither the name lookup nor the number of
    # addresses tried one after the other.
    outcome: list[BaseException | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if outcome and outcome[0] is not None and not isinstance(outcome[0], (OSError, UnicodeError)):
        raise outcome[0]
    return outcome == [None]


def go_offline() -> None:
    """Keep the hub libraries of this process off the network."""
    import huggingface_hub.constants

    global _switched_off_here
    # The variable is read at import: libraries imported earlier need the constant, later ones it.
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        _switched_off_here = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def _go_online() -> None:
    """Undo `go_offline` if this module called it.

    The next cell of a sweep may download.
    """
    import huggingface_hub.constants

    global _switched_off_here
    if _switched_off_here:
        os.environ.pop("HF_HUB_OFFLINE", None)
        huggingface_hub.constants.HF_HUB_OFFLINE = False
        _switched_off_here = False
