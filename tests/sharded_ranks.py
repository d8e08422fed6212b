"""Trains FourierFT alone, under DDP and under FSDP2: `torchrun --nproc_per_node=2
tests/sharded_ranks.py losses.json`."""

import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from peft import get_peft_model  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from fourierft import FourierFTConfig, configure  # noqa: E402

STEPS, ROWS = 10, 8
ENGINES = [
    (memory, gradient) for memory in ("cache", "recompute") for gradient in ("dense", "sampled")
]
ENGINES.append(("batched", "dense"))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.value, self.out = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        return x + self.out(torch.tanh(self.query(x)) * self.value(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build(memory, gradient):
    torch.manual_seed(0)
    config = FourierFTConfig(
        n_frequency=75, target_modules=["query", "value"], modules_to_save=["head"], scaling=40.0
    )
    model = get_peft_model(Net(), config)
    configure(model, memory=memory, gradient=gradient)
    return model


def train(model, rank=0, ranks=1):
    """Losses of the whole batch, and the trained parameters' sum at the end."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(ROWS, 32, generator=generator)
        target = x[:, :4]
        mine = slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
        loss = (model(x[mine]) - target[mine]).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        if ranks > 1:
            dist.all_reduce(total)
        losses.append((total / ranks).item())
    return losses


def sharded(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.get_base_model().blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model.get_base_model(), mesh=mesh)
    return model


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = {}
    for memory, gradient in ENGINES:
        model = build(memory, gradient)
        alone = train(copy.deepcopy(model))
        data_parallel = train(DistributedDataParallel(copy.deepcopy(model)), rank, ranks)
        fully_sharded = train(sharded(model), rank, ranks)
        found[f"{memory} {gradient}"] = {
            "alone": alone,
            "data_parallel": data_parallel,
            "fully_sharded": fully_sharded,
        }
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
