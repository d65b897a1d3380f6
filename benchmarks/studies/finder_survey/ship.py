"""
The checkpoint of `ground-gri-graded`: half the weights of `ground-gri`, half those of three trainings with all grades.

    lenspipe finder tiles/kids_train --survey kids --runner local --out tuned --pretrained ground-gri \
        --set stamps.count=12000 --until stamps ...     # tiles and PSF: `crop`
    python -m benchmarks.studies.finder_survey.teach benchmarks/studies/finder_survey/teach.toml --real ../shared/data \
        --stamps . --work taught --beside fresh --only half-200 --seeds 2026 --seeds 2027 --seeds 2028
    python -m benchmarks.studies.finder_ground.make_stamps --real ../shared/data --out ground --train 0
    python -m benchmarks.studies.finder_survey.ship taught/half-200 --data ground --out ground-gri-graded

Calibrated by Platt's line on the validation split of ``--data`` without the stamps on KiDS hosts and sources, for those
lie in rows that the trainings painted on; the card says what it saw, and once the test stamps are judged what they say
(`card`).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.finder.rounds import calibrate_member
from lenspipe.nn.card import digest, find_model, read_card, write_card
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.outputs import Find
from lenspipe.runner import SILENT
from lenspipe.stamps.format import StampSet

NOTE = (
    "Space Warps grades (44 lenses, 65 look-alikes of CFHTLS) beside painted KiDS stamps. Its score ranks, its "
    "probability is that of painted stamps."
)


@click.command()
@click.argument("setting", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Stamps of finder_ground.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
@click.option("--seeds", default="2026-2027-2028", show_default=True, help="Of the trainings, as in their folder.")
def main(setting: Path, data: Path, out: Path, seeds: str) -> None:
    """Write the checkpoint of the trainings of a SETTING."""
    base = find_model("ground-gri")
    network, card = load_model(setting / f"seeds-{seeds}" / "fold-all" / "soup")
    begun = read_card(base)
    facts = {
        key: value
        for key, value in card.training.items()
        if key in ("settings", "steps", "epochs", "device", "n_parameter", "workers", "augment")
    } | {
        "data": "painted stamps of KiDS rows 0 to 1690, and Space Warps grades",
        "unit": "nJy",
        "command": "python -m benchmarks.studies.finder_survey.ship (teach.toml, half-200)",
        "seed": [int(seed) for seed in seeds.split("-")],
        "base": {"name": begun.name, "digest": digest(base), "part": 0.5},
        "graded": {"lens": 44, "nonlens": 65, "share": 0.5, "most_repeats": 60},
        "hosts": "those of ground-gri through its weights, and KiDS galaxies of rows 0 to 1690",
        "note": NOTE,
    }
    shipped = card.model_copy(
        update={
            "name": out.name,
            "neighbours": begun.neighbours,
            "scale_tolerance": begun.scale_tolerance,
            "min_scale_arcsec": begun.min_scale_arcsec,
            "max_scale_arcsec": begun.max_scale_arcsec,
            "licence": begun.licence,
            "training": facts,
            "metrics": {},
            "created": "",
        }
    ).with_outputs(calibration=None, abstention=None)
    assert isinstance(shipped.outputs, Find)
    assert (shipped.stretch, shipped.bands, shipped.stamp_px) == (begun.stretch, begun.bands, begun.stamp_px)
    save_model(out, network, shipped)
    with tempfile.TemporaryDirectory() as scratch:
        finish(out, unseen(data, Path(scratch) / "unseen"))


def unseen(data: Path, folder: Path) -> Path:
    """The validation stamps of a data set that are not on KiDS hosts or sources."""
    folder.mkdir()
    for part in sorted(data.glob("*.parquet")):
        table = pq.read_table(part)
        kept = pc.and_(pc.equal(table["split"], "validation"), pc.invert(pc.starts_with(table["host"], "kids-")))
        if (table := table.filter(kept)).num_rows:
            pq.write_table(table, folder / part.name)
    for file in data.glob("*.json"):
        shutil.copy(file, folder)
    return folder


def finish(out: Path, data: Path) -> None:
    """Calibrate, judge, and write both into the card."""
    calibrate_member(out, data, SILENT)
    stamps = StampSet.open(data)
    (found,) = judged(open_members([out], stamps), stamps, JudgeSettings(split="validation")).metrics().values()
    written = read_card(out)
    kept = {key: value for key, value in found.items() if key.startswith(("auroc", "n_"))}
    assert "auroc" in kept, sorted(found)
    write_card(out, written.model_copy(update={"metrics": {"validation": kept}}))
    print(written.outputs, kept)


if __name__ == "__main__":
    main()
