"""
What a denoiser adds to scoring, in CPU seconds of one core, and its megapixels a second on whole tiles.

    python -m benchmarks.denoise_speed [MODEL ...]

Scoring is preparation and network of `ground-gri` on 65 pixel cutouts at 0.27"; the fastest of the rounds counts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import record
from benchmarks.timing import fastest_s
from lenspipe.infer.denoise import Denoiser, denoise_tile
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import find_model, read_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build

N, ROUNDS, TILE_PX = 128, 5, 512
SCALE_ARCSEC = 0.27
RMS = np.array([13.0, 15.0, 34.0])[:, None, None]


@click.command()
@click.argument("names", nargs=-1)
@record.keep_option
def main(names: tuple[str, ...], keep: bool) -> None:
    """Measure denoisers NAMES (shipped names or folders; denoise-ground where none is given)."""
    torch.set_num_threads(1)
    names = names or ("denoise-ground",)
    scorer = Scorer(find_model("ground-gri"), device="cpu")
    rng = np.random.default_rng(0)
    side = scorer.card.stamp_px
    cutouts = rng.normal(20, 60, (N, 3, side, side)).astype(np.float32)
    tile = rng.normal(0, 15, (3, TILE_PX, TILE_PX)).astype(np.float32)
    scoring = fastest_s(lambda: scorer.score(cutouts, pixel_scale_arcsec=SCALE_ARCSEC), ROUNDS) / N
    result: dict[str, Any] = {"scoring_ms_per_stamp": 1e3 * scoring, "models": {}}
    with tempfile.TemporaryDirectory() as scratch:
        full = Path(scratch) / "unet-untrained"
        card = read_card(find_model(names[0])).model_copy(update={"family": "unet", "settings": {}, "name": full.name})
        save_model(full, build("unet", 4, card.stamp_px, 3), card)
        for name in [*names, str(full)]:
            denoiser = Denoiser(find_model(name), device="cpu")
            n = N if denoiser.card.family == "unet-small" else 32
            rounds = ROUNDS if n == N else 2
            some = cutouts[:n]
            stamp = fastest_s(lambda d=denoiser, c=some: d.denoise(c, RMS, ratio=4.0), rounds) / n
            wide = np.broadcast_to(RMS.astype(np.float32), tile.shape)
            none = np.zeros(tile.shape, bool)
            whole = fastest_s(lambda d=denoiser, w=wide, m=none: denoise_tile(d, tile, w, m, ratio=4.0), min(rounds, 3))
            same = denoiser.denoise(some[:1], RMS, ratio=1.0)
            assert np.array_equal(same, some[:1]), "a ratio of 1 changes the image"
            result["models"][denoiser.card.name] = {
                "family": denoiser.card.family,
                "parameters": denoiser.n_parameter,
                "ms_per_stamp": 1e3 * stamp,
                "added_over_scoring": stamp / scoring,
                "megapixels_per_s": tile.size / 1e6 / whole,
            }
    added = result["models"][read_card(find_model(names[0])).name]["added_over_scoring"]
    record.write("denoise_speed", result, [record.at_most("added over scoring", added, 1.5)], keep=keep)


if __name__ == "__main__":
    main()
