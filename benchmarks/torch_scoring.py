"""
Ways to run a shipped finder with torch on a CPU: stamps per second, and how far the logits lie from those of a scan.

    python -m benchmarks.torch_scoring

Rates are of processor seconds of one thread, the ways taking turns; of two threads they are of wall time. Stamps are
noise of the survey's depth around a source: what they show does not change the rate. Engines other than torch are in
`benchmarks/score_engines.py`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import copy
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch

from benchmarks import record
from benchmarks.timing import Clock, rounds_s
from lenspipe.infer.loaded import BATCH_SIZE_CPU
from lenspipe.nn.card import find_model
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.fold import fold_batch_norm

MODEL, N, ROUNDS, AIM = "ground-gri", 256, 3, 2.0
Network = Callable[[torch.Tensor], torch.Tensor]


def ways(module: torch.nn.Module, example: torch.Tensor) -> dict[str, Network]:
    """The network by each way; the first is a scan's."""
    scan = fold_batch_norm(module).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(copy.deepcopy(scan), example).eval())
        optimized = torch.jit.optimize_for_inference(torch.jit.trace(copy.deepcopy(scan), example).eval())

    def mixed(stamps: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return scan(stamps).float()

    return {
        "as in a scan": scan,
        "batch norm not folded, contiguous": copy.deepcopy(module).to(memory_format=torch.contiguous_format),
        "traced and frozen": traced,
        "optimized for inference": optimized,
        "bfloat16 (autocast)": mixed,
    }


def calls(network: Network, stamps: torch.Tensor, batch: int) -> Callable[[], torch.Tensor]:
    parts = [part.contiguous(memory_format=torch.channels_last) for part in stamps.split(batch)]

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([network(part) for part in parts])

    return call


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Measure the shipped finder."""
    torch.set_num_threads(1)
    module, card = load_model(find_model(MODEL))
    shape = (N, len(card.bands), card.stamp_px, card.stamp_px)
    stamps = torch.from_numpy(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))
    example = stamps[:BATCH_SIZE_CPU].contiguous(memory_format=torch.channels_last)
    known = ways(module, example)
    each = {name: calls(network, stamps, BATCH_SIZE_CPU) for name, network in known.items()}
    each |= {f"as in a scan, batch {b}": calls(known["as in a scan"], stamps, b) for b in (8, 16, 64, 128)}
    want = each["as in a scan"]()
    seconds = rounds_s(each, ROUNDS)
    result: dict[str, Any] = {"model": MODEL, "stamps": N, "rounds": ROUNDS, "ways": {}}
    base = min(seconds["as in a scan"])
    for name, call in each.items():
        away = (call().float() - want).abs().max().item()
        best = min(seconds[name])
        result["ways"][name] = {"per_s": round(N / best), "over_a_scan": round(base / best, 3), "logit_away": away}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with Clock() as clock:
            each["as in a scan"]()
        result[f"wall_per_s_{threads}_threads"] = round(N / clock.wall_s)
    best = max(way["over_a_scan"] for way in result["ways"].values())
    record.write("torch_scoring", result, [record.at_least("the fastest way over a scan's", best, AIM)], keep=keep)


if __name__ == "__main__":
    main()
