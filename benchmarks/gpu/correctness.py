"""Checks against float64 on the CPU; a check that fails or cannot run stops no other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from benchmarks.cases import ALPHA, adapt
from benchmarks.gpu.contestants import count_syncs, strategies
from benchmarks.gpu.sections import Plan, Row, describe_error
from fourierft import Engine, hold_weights
from fourierft.bases.reference import reference_update
from fourierft.engine.kept_weights import raise_if_stale
from fourierft.frozen_weight import dequantised_4bit

# Relative errors: roundings of the format, times what sums over the tokens add.
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
_N = 100
_ADAPTER = "default"


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Frobenius norm of the difference over that of the expected."""
    found, expected = (tensor.detach().double().cpu() for tensor in (found, expected))
    return float((found - expected).norm() / expected.norm())


class Net(nn.Module):
    """A layer, and another one like it that only shares its builds."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.layer, self.twin = base, copy.deepcopy(base)

    def forward(self, x: Tensor) -> Tensor:
        """Call the first layer alone."""
        return self.layer(x)


class Problem:
    """One adapted layer with its input, and its results in float64."""

    def __init__(
        self, base: nn.Module, size: tuple[int, int], dtype: torch.dtype, plan: Plan, engine: Engine
    ) -> None:
        torch.manual_seed(0)
        out, in_ = size
        self.run: Callable[[Tensor], Tensor]
        self.run = net = adapt(Net(base), engine, min(_N, out * in_), ["layer", "twin"])
        self.layer = net.layer
        self.spectrum = self.layer.fourierft_spectrum[_ADAPTER]
        tokens = 12 if plan.tiny else 300
        make = {"dtype": dtype, "device": plan.device}
        self.x = torch.randn(tokens, in_).to(**make).requires_grad_()
        self.dy = torch.randn(tokens, out).to(**make)

    def results(self) -> list[Tensor]:
        """Return output, input gradient and coefficient gradient."""
        y = self.run(self.x)
        return [y, *torch.autograd.grad(y, [self.x, self.spectrum], self.dy)]

    def expected(self, weight: Tensor | None = None) -> list[Tensor]:
        """Return the same in float64 by the paper's formula.

        Args:
            weight: W0 (out, in); None takes the base layer's.
        """
        base = self.layer.get_base_layer()
        w0 = base.weight if weight is None else weight
        w0 = w0.detach().double().cpu()
        if isinstance(base, Conv1D):
            w0 = w0.t()
        x = self.x.detach().double().cpu().requires_grad_()
        c = self.spectrum.detach().double().cpu().requires_grad_()
        entries = self.layer.entries(_ADAPTER).cpu()
        y = x @ (w0 + reference_update(c, entries, w0.shape, ALPHA)).t()
        return [y, *torch.autograd.grad(y, [x, c], self.dy.double().cpu())]

    def error(self, weight: Tensor | None = None) -> float:
        """Return the largest relative error of the three results."""
        pairs = zip(self.results(), self.expected(weight), strict=True)
        return max(relative_error(*pair) for pair in pairs)


def make_problem(
    plan: Plan, dtype: torch.dtype = torch.float32, engine: Engine | None = None, size=None
) -> Problem:
    """Return the problem of a linear layer without a bias."""
    out, in_ = size or ((24, 20) if plan.tiny else (768, 640))
    torch.manual_seed(0)
    linear = nn.Linear(in_, out, bias=False).to(device=plan.device, dtype=dtype)
    return Problem(linear, (out, in_), dtype, plan, engine or Engine())


def check_conv1d(plan: Plan) -> float:
    """GPT-2's layer, whose weight is (in, out)."""
    out, in_ = (24, 20) if plan.tiny else (768, 640)
    torch.manual_seed(0)
    return Problem(
        Conv1D(out, in_).to(plan.device), (out, in_), torch.float32, plan, Engine()
    ).error()


def check_staleness(plan: Plan) -> float:
    """Every strategy sees the steps of fused AdamW, which leave no version behind."""
    worst = 0.0
    for engine in strategies().values():
        problem = make_problem(plan, engine=engine)
        optimizer = torch.optim.AdamW([problem.spectrum], lr=0.1, fused=True)
        for _ in range(3):
            problem.spectrum.grad = problem.results()[2]
            optimizer.step()
            worst = max(worst, problem.error())
    return worst


def check_keeping(plan: Plan) -> float:
    """Weights that are kept for the passes of a step: right, without a wait, loud when stale."""
    problem = make_problem(plan, engine=Engine("kept"))
    trained = [layer.fourierft_spectrum[_ADAPTER] for layer in problem.run.children()]
    optimizer = torch.optim.AdamW(trained, lr=0.1, fused=True)
    worst = 0.0
    for _ in range(3):
        problem.spectrum.grad = problem.results()[2]
        if plan.device == "cuda" and (waits := count_syncs(problem.results)):
            raise ArithmeticError(f"a micro-batch waits {waits} times")
        optimizer.step()
        worst = max(worst, problem.error())
    problem.spectrum.data.mul_(2)
    problem.results()
    try:
        raise_if_stale()
    except RuntimeError:
        return max(worst, problem.error())
    raise ArithmeticError("stale weights were not found")


def check_checkpointing(plan: Plan) -> float:
    """Gradients of a checkpointed layer, over every strategy."""
    worst = 0.0
    for engine in strategies().values():
        problem = make_problem(plan, engine=engine)
        y = checkpoint(problem.run, problem.x, use_reentrant=False)
        found = [y, *torch.autograd.grad(y, [problem.x, problem.spectrum], problem.dy)]
        worst = max(worst, *map(relative_error, found, problem.expected()))
    return worst


def check_compile(plan: Plan) -> float:
    """torch.compile without a graph break; on a CPU without generated code."""
    problem = make_problem(plan)
    backend = "inductor" if plan.device == "cuda" else "aot_eager"
    problem.run = torch.compile(problem.run, backend=backend, fullgraph=True)
    return problem.error()


def check_grad_scaler(plan: Plan) -> float:
    """float16 autocast at the first scale, 65536: nothing may overflow."""
    problem = make_problem(plan)
    problem.dy /= problem.dy.numel()  # as of a mean
    scaler = torch.amp.GradScaler(plan.device)
    optimizer = torch.optim.AdamW([problem.spectrum], lr=1e-3)
    with torch.autocast(plan.device, torch.float16):
        y = problem.run(problem.x)
    scaler.scale((y.float() * problem.dy).sum()).backward()
    scaler.unscale_(optimizer)
    return relative_error(problem.spectrum.grad, problem.expected()[2])


def check_quantised(plan: Plan, bits: int) -> float:
    """Results of a layer of bitsandbytes; of 8 bits, which rounds inputs, the adapter's share."""
    import bitsandbytes

    side = 64 if plan.tiny else 1024
    torch.manual_seed(0)
    weight = torch.randn(side, side) / side**0.5
    if bits == 4:
        make = {"compute_dtype": torch.bfloat16, "quant_type": "nf4"}
        base = bitsandbytes.nn.Linear4bit(side, side, bias=False, **make)
        base.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        base = bitsandbytes.nn.Linear8bitLt(side, side, bias=False, has_fp16_weights=False)
        base.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False)
    dtype = torch.bfloat16 if bits == 4 else torch.float16
    base = base.to(plan.device)
    problem = Problem(base, (side, side), dtype, plan, Engine())
    if bits == 4:
        return problem.error(dequantised_4bit(base.weight))
    y, _, dc = problem.results()
    with torch.no_grad():
        share = y.float() - problem.layer.get_base_layer()(problem.x).float()
    nothing = torch.zeros(side, side)
    expected = problem.expected(nothing)
    return max(relative_error(share, expected[0]), relative_error(dc, expected[2]))


def check_holding(plan: Plan) -> float:
    """Held weights: the same output, and on a GPU no call that waits."""
    problem = make_problem(plan)
    with torch.no_grad(), hold_weights(problem.layer):
        problem.layer(problem.x)
        if plan.device == "cuda" and (waits := count_syncs(lambda: problem.layer(problem.x))):
            raise RuntimeError(f"a call waits {waits} times for the GPU")
        y = problem.layer(problem.x)
    return relative_error(y, problem.expected()[0])


def check_sharding(plan: Plan) -> float:
    """FSDP2 over one rank: losses of three steps against the same network unsharded."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    side = 16 if plan.tiny else 256
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(side, side), nn.Tanh(), nn.Linear(side, side)).to(plan.device)
    alone = adapt(net, Engine(), min(_N, side * side), ["0", "2"])
    sharded = copy.deepcopy(alone)
    backend = "nccl" if plan.device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(sharded, mesh=init_device_mesh(plan.device, (1,)))
        losses = [_train(net, side, plan.device) for net in (sharded, alone)]
    finally:
        dist.destroy_process_group()
    return relative_error(*losses)


def _train(net: nn.Module, side: int, device: str) -> Tensor:
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(3):
        x = torch.randn(8, side, generator=generator).to(device)
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach().cpu())
    return torch.stack(losses)


def checks() -> dict[str, tuple[Callable[[Plan], float], float]]:
    """Return every check and the largest error that passes."""
    found: dict[str, tuple[Callable[[Plan], float], float]] = {}
    for dtype, limit in LIMITS.items():
        kind = str(dtype).removeprefix("torch.")
        engines = strategies()
        if dtype != torch.float32:
            engines["exact"] = Engine(precision="exact")
        for name, engine in engines.items():
            found[f"{name}, {kind}"] = (
                lambda plan, dtype=dtype, engine=engine: make_problem(plan, dtype, engine).error(),
                limit,
            )
    single = LIMITS[torch.float32]
    return found | {
        "odd shape": (lambda plan: make_problem(plan, size=(33, 21)).error(), single),
        "one row": (lambda plan: make_problem(plan, size=(1, 7)).error(), single),
        "Conv1D": (check_conv1d, single),
        "fused AdamW, no stale weight": (check_staleness, single),
        "kept weights": (check_keeping, single),
        "gradient checkpointing": (check_checkpointing, single),
        "torch.compile": (check_compile, single),
        "GradScaler at 65536": (check_grad_scaler, LIMITS[torch.float16]),
        "held weights": (check_holding, single),
        "4-bit weight": (lambda plan: check_quantised(plan, 4), LIMITS[torch.bfloat16]),
        "8-bit weight": (lambda plan: check_quantised(plan, 8), 2 * LIMITS[torch.bfloat16]),
        "FSDP2 on one rank": (check_sharding, 1e-5),
    }


def measure_correctness(plan: Plan) -> Iterator[Row]:
    """Yield error, limit and verdict of every check."""
    for name, (check, limit) in checks().items():
        try:
            error = check(plan)
        except Exception as failure:
            yield {"check": name, "passed": False, "failure": describe_error(failure)}
            continue
        yield {"check": name, "passed": error <= limit, "error": error, "limit": limit}
