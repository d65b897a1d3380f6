"""
The checkpoint of `space-vis-bright`: what `lenspipe train` made, with a card that says what it saw.

    lenspipe calibrate space-vis-bright --data plain --data bright --split validation --method platt --in-place
    python -m benchmarks.studies.finder_space.ship space-vis-bright --out lenspipe/weights/space-vis-bright
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from lenspipe.nn.card import WEIGHTS_FILE, find_model, read_card, write_card
from lenspipe.nn.outputs import Find

COMMAND = (
    "lenspipe train --data plain --data bright --data hosts_even --data hosts_odd --model small-cnn --task find "
    "--pretrained space-vis --config benchmarks/studies/finder_space/bright_train.toml --epochs 8 --seed 1 "
    "--runner local"
)
HOSTS = {"jwst_f444w": 47, "cosmos_hst": "those of space-vis, the even half"}
NOTE = (
    "Trained on from space-vis with brighter simulated galaxies, Einstein radii to 3 arcsec and arcs painted on 47 "
    "bright JWST galaxies. Better than space-vis at real lenses against bright galaxies, worse at look-alikes "
    "(docs/results/finder_space.md). Its score ranks, its probability is that of simulated stamps."
)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
def main(model: Path, out: Path) -> None:
    """Copy a calibrated MODEL with the facts of its training."""
    card, begun = read_card(model), read_card(find_model("space-vis"))
    assert (card.stretch, card.bands, card.stamp_px) == (begun.stretch, begun.bands, begun.stamp_px)
    assert isinstance(card.outputs, Find) and card.outputs.calibration is not None, "calibrate it first"
    out.mkdir(parents=True)
    shutil.copy(model / WEIGHTS_FILE, out)
    training = {key: value for key, value in card.training.items() if key != "history"}
    training |= {"command": COMMAND, "hosts": HOSTS, "note": NOTE, "pretrained": "space-vis"}
    write_card(out, card.model_copy(update={"name": out.name, "training": training}))


if __name__ == "__main__":
    main()
