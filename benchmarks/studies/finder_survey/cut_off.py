"""
The checkpoint of a training that was cut off: the running mean of its weights at the last whole epoch.

    lenspipe train --data mixed --model timm:resnet18 --task find --seed 1 --runner local --out resnet18n \
        --config benchmarks/studies/finder_survey/resnet.toml
    python -m benchmarks.studies.finder_survey.cut_off resnet18n --out resnet18n-cut

Input and stretch are those of `ground-gri`. The card says after how many epochs, and what was measured by then.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click

from lenspipe.learn.fit_state import STATE_FILE, read_state
from lenspipe.nn.card import find_model, read_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build

SETTINGS = Path(__file__).with_name("resnet.toml")
FAMILY = "timm:resnet18"


@click.command()
@click.argument("training", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
def main(training: Path, out: Path) -> None:
    """Write the checkpoint of a TRAINING."""
    settings = tomllib.loads(SETTINGS.read_text())["model"]
    state = read_state(training / STATE_FILE)
    begun = read_card(find_model("ground-gri"))
    network = build(FAMILY, n_channel=len(begun.bands), stamp_px=begun.stamp_px, n_out=1, **settings)
    network.load_state_dict(state.averaged())
    told = {"epochs": state.epoch, "cut_off": True, "metrics": state.history[-1]}
    changes = {"name": out.name, "family": FAMILY, "settings": settings, "training": told, "metrics": {}}
    card = begun.model_copy(update=changes).with_outputs(calibration=None, abstention=None)
    save_model(out, network, card)
    print(json.dumps(state.history[-1]))


if __name__ == "__main__":
    main()
