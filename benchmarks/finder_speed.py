"""
Stamps per second on one core: batch sizes, memory formats, with and without preparation, against one stamp at a time.

    python -m benchmarks.finder_speed

The aims: at least 1.5 times one stamp at a time, and no slower than plain batches of 32 through the module as it is.

Times are CPU seconds of this process, so that a busy machine does not enter; the fastest of several rounds counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch

from benchmarks import record
from benchmarks.timing import fastest_s
from lenspipe.infer.loaded import BATCH_SIZE_CPU
from lenspipe.infer.prepare import cutout_size_px, prepare_stamps
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import find_model
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.fold import fold_batch_norm

MODEL = "ground-gri"
N, ROUNDS = 256, 4


def per_second(call: Callable[[], Any], n: int) -> float:
    return round(n / fastest_s(call, ROUNDS))


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Measure the shipped finder."""
    torch.set_num_threads(1)
    folder = find_model(MODEL)
    module, card = load_model(folder)
    folded = fold_batch_norm(module)
    rng = np.random.default_rng(0)
    sizes = {scale: cutout_size_px(card, scale) for scale in (0.186, 0.2, 0.262, 0.339)}
    cutouts = {s: rng.normal(20, 60, (N, len(card.bands), n, n)).astype(np.float32) for s, n in sizes.items()}
    stamps = torch.from_numpy(prepare_stamps(cutouts[0.2], cutout_scale_arcsec=0.2, card=card))

    def network(net: torch.nn.Module, batch: int, form: torch.memory_format) -> Callable[[], torch.Tensor]:
        net = net.to(memory_format=form)
        parts = [part.contiguous(memory_format=form) for part in stamps.split(batch)]

        def call() -> torch.Tensor:
            with torch.inference_mode():
                return torch.cat([net(part) for part in parts])

        return call

    result: dict[str, Any] = {"stamps": N, "network_per_s": {}, "scorer_per_s": {}}
    for form in (torch.contiguous_format, torch.channels_last):
        name = str(form).removeprefix("torch.")
        for batch in (16, 32, 64, 128):
            result["network_per_s"][f"{name}, batch {batch}"] = per_second(network(folded, batch, form), N)
    result["unfolded_per_s, batch 32"] = per_second(network(module, 32, torch.contiguous_format), N)
    result["one_stamp_at_a_time_per_s"] = per_second(network(module, 1, torch.contiguous_format), N)
    scorer = Scorer(folder, device="cpu")
    for scale, some in cutouts.items():
        call = functools.partial(scorer.score, some, pixel_scale_arcsec=scale)
        result["scorer_per_s"][f'{scale}" pixels'] = per_second(call, N)
    result["default_batch"] = BATCH_SIZE_CPU
    ours = result["network_per_s"][f"channels_last, batch {BATCH_SIZE_CPU}"]
    plain = result["unfolded_per_s, batch 32"]
    result["over_one_stamp_at_a_time"] = round(ours / result["one_stamp_at_a_time_per_s"], 2)
    result["over_plain_batches"] = round(ours / plain, 2)

    naive = network(module, 1, torch.contiguous_format)().double().sigmoid().numpy()
    scores = scorer.score(cutouts[0.2], pixel_scale_arcsec=0.2)
    assert np.allclose(scores, naive, rtol=1e-4), "the scorer does not agree with the network one stamp at a time"
    aims = [
        record.at_least("over one stamp at a time", result["over_one_stamp_at_a_time"], 1.5),
        record.at_least("over plain batches", result["over_plain_batches"], 1.0),
    ]
    record.write("finder_speed", result, aims, keep=keep)


if __name__ == "__main__":
    main()
