"""
Equivariant networks: time to build them with and without the cache, and stamps a second of their plain form.

    python -m benchmarks.equivariant_speed [GROUP ...]

The plain form is compared with an ordinary network of the same channels, kernels and halvings, with our own training
form, and with the same architecture in escnn's modules, in evaluation and for a training step. Times are CPU seconds
of one thread, the fastest of several rounds that take turns; `build_s` is wall time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks import record
from benchmarks.timing import rounds_s
from lenspipe.nn import groups
from lenspipe.nn.families.plain_equivariant import Plan
from lenspipe.nn.registry import build

STARTS = ("d16", "o2")
SPEEDS = {"c8": 2, "d4": 2, "so2": 2, "so2-gated": 2}
STAMP_PX, BATCH, ROUNDS = 65, 16, 3
START = """
import sys, time
import torch
from lenspipe.nn.registry import build, families
torch.set_num_threads(1)
families()
began = time.perf_counter(), time.process_time()
build("equivariant-" + sys.argv[1], 3, 65)
print(time.perf_counter() - began[0], time.process_time() - began[1], time.process_time())
"""


class Ordinary(nn.Module):
    """The same channels, kernels and halvings in plain PyTorch: convolution, ReLU, average pooling, mean, head."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 3
        for n_field, size, kernel_px, pooled in zip(plan.fields, plan.sizes, plan.kernels, plan.pooled, strict=True):
            layers += [nn.Conv2d(n_in, n_field * size, kernel_px, padding=kernel_px // 2), nn.ReLU()]
            n_in = n_field * size
            if pooled:
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(n_in, 64), nn.ELU(), nn.Linear(64, 1))

    def forward(self, stamps: Tensor) -> Tensor:
        out: Tensor = self.head(self.trunk(stamps).mean((2, 3)))
        return out


class InEscnn(nn.Module):
    """The same architecture of a finite group in escnn's modules."""

    def __init__(self, group: str, plan: Plan) -> None:
        super().__init__()
        with groups._escnn() as escnn:
            e = escnn.nn
            space = groups._space(escnn, group)
            before = self.scalar = e.FieldType(space, 3 * [space.trivial_repr])
            layers = []
            for i, n_field in enumerate(plan.fields):
                field = e.FieldType(space, n_field * [space.regular_repr])
                side = plan.kernels[i]
                layers += [e.R2Conv(before, field, side, padding=side // 2, bias=False), e.InnerBatchNorm(field)]
                layers.append(e.ReLU(field, inplace=True))
                if plan.pooled[i]:
                    layers.append(e.PointwiseAvgPoolAntialiased2D(field, sigma=0.66, stride=2))
                before = field
            layers.append(e.GroupPooling(before))
            self.trunk = e.SequentialModule(*layers)
            self.tensor = e.GeometricTensor
        self.head = nn.Sequential(nn.Linear(plan.fields[-1], 64), nn.ELU(), nn.Linear(64, 1))

    def forward(self, stamps: Tensor) -> Tensor:
        out: Tensor = self.head(self.trunk(self.tensor(stamps, self.scalar)).tensor.mean((2, 3)))
        return out


def start(group: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"LENSPIPE_CACHE": folder, "OMP_NUM_THREADS": "1"}
        times = []
        for _ in range(2):
            command = [sys.executable, "-c", START, group]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            times.append([round(float(t), 2) for t in run.stdout.split()])
        cached = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files)
    names = ("build_s", "build_cpu_s", "process_cpu_s")
    return {
        "first": dict(zip(names, times[0], strict=True)),
        "second": dict(zip(names, times[1], strict=True)),
        "cache_kib": round(cached / 1024, 1),
    }


def speeds(name: str, width: int) -> dict[str, Any]:
    torch.manual_seed(0)
    group, _, nonlinearity = name.partition("-")
    settings = {"nonlinearity": nonlinearity} if nonlinearity else {}
    module = build(f"equivariant-{group}", 3, STAMP_PX, width=width, dropout=0.0, **settings)
    stamps = torch.randn(BATCH, 3, STAMP_PX, STAMP_PX)
    module.train()(stamps)
    module.eval()
    plain = module.plain()
    nets: dict[str, nn.Module] = {"plain": plain, "ordinary": Ordinary(module.plan).eval(), "training_form": module}
    if group not in groups.CONTINUOUS:
        nets["escnn"] = InEscnn(group, module.plan).eval()
    with torch.inference_mode():
        assert torch.allclose(plain(stamps), module(stamps), atol=1e-5), "the plain form gives other outputs"

    def evaluate(net: nn.Module) -> Callable[[], Any]:
        form = torch.channels_last if net is nets["plain"] or net is nets["ordinary"] else torch.contiguous_format
        net = net.to(memory_format=form)
        batch = stamps.contiguous(memory_format=form)

        def call() -> Tensor:
            with torch.inference_mode():
                out: Tensor = net(batch)
            return out

        return call

    def step(net: nn.Module) -> Callable[[], None]:
        def call() -> None:
            net.zero_grad()
            net(stamps).square().mean().backward()

        return call

    took = rounds_s({name: evaluate(net) for name, net in nets.items()}, ROUNDS)
    per_s = {name: round(BATCH / min(t), 1) for name, t in took.items()}
    trained = {name: net.train() for name, net in nets.items() if name in ("training_form", "escnn")}
    steps = rounds_s({name: step(net) for name, net in trained.items()}, ROUNDS)
    return {
        "width": width,
        "channels": [f * s for f, s in zip(module.plan.fields, module.plan.sizes, strict=True)],
        "stamps_per_s": per_s,
        "plain_over_ordinary": round(per_s["plain"] / per_s["ordinary"], 2),
        "plain_over_training_form": round(per_s["plain"] / per_s["training_form"], 2),
        "plain_over_escnn": round(per_s["plain"] / per_s["escnn"], 2) if "escnn" in per_s else None,
        "training_stamps_per_s": {name: round(BATCH / min(t), 1) for name, t in steps.items()},
    }


@click.command()
@click.argument("names", nargs=-1)
@record.keep_option
def main(names: tuple[str, ...], keep: bool) -> None:
    """Measure the groups NAMES (all where none is given)."""
    torch.set_num_threads(1)
    chosen = names or (*STARTS, *SPEEDS)
    result: dict[str, Any] = {"stamp_px": STAMP_PX, "batch": BATCH, "starts": {}, "speeds": {}}
    for group in STARTS:
        if group in chosen:
            result["starts"][group] = start(group)
            print(group, result["starts"][group], flush=True)
    for group, width in SPEEDS.items():
        if group in chosen:
            result["speeds"][group] = speeds(group, width)
            print(group, result["speeds"][group], flush=True)
    aims = [
        record.at_most(f"CPU seconds of the second start of {group}", times["second"]["build_cpu_s"], 2.0)
        for group, times in result["starts"].items()
    ]
    record.write("equivariant_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
