"""What `torchrun --nnodes=N --nproc-per-node=1 --rdzv_backend=c10d` does on a node.

`node.py N ENDPOINT PROGRAM WORDS`. Its process is forked, or it would import everything anew.
"""

import runpy
import sys

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def execute(program, words):
    """Runs a script with these arguments."""
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    number, endpoint, program, *words = sys.argv[1:]
    config = LaunchConfig(
        min_nodes=int(number),
        max_nodes=int(number),
        nproc_per_node=1,
        run_id="nodes",
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint,
        local_addr="127.0.0.1",
        start_method="fork",
        max_restarts=0,
    )
    elastic_launch(config, execute)(program, words)
