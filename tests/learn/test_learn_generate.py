"""Each generator makes rings of the radii that it was shown; with a broken loss it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.evaluate.stream import count_rows
from lenspipe.infer.generate import Asked, Generator
from lenspipe.infer.generated_set import write_generated
from lenspipe.learn import loop
from lenspipe.learn.generate.diffusion import Denoising
from lenspipe.learn.generate.gan import NonSaturating
from lenspipe.learn.generate.wgan import WassersteinPenalty
from lenspipe.learn.job import make_job
from lenspipe.learn.players import MAIN, Turn
from lenspipe.learn.settings import GenerateSettings, OptimSettings, TrainSettings
from lenspipe.learn.train import run_job, train
from lenspipe.learn.world import World
from lenspipe.nn.preprocess import stretch_inverse
from lenspipe.nn.registry import build
from lenspipe.stamps.format import ImageSpec, StampSet, image_column, stamp_schema, write_part
from lenspipe.stamps.joined import Source
from lenspipe.stats.generated import wasserstein

SIDE = 9
RADII = {"small": (1.2, 1.8), "large": (2.4, 3.6)}
"""Of rings by their label, pixels."""


class KilledError(Exception):
    pass


def make(folder: Path, n: int, labels: tuple[str, ...]) -> Path:
    """Rings of a radius that is uniform within the range of their label, and noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    kinds = [labels[k] for k in rng.integers(0, len(labels), n)]
    radius = np.array([rng.uniform(*RADII[kind]) for kind in kinds])
    stamps = rng.normal(0, 1, (n, 1, SIDE, SIDE)).astype(np.float32)
    stamps[:, 0] += 10 * np.exp(-2 * (np.hypot(x, y) - radius[:, None, None]) ** 2)
    spec = ImageSpec(("g",), SIDE, 0.2)
    schema = stamp_schema({"image": spec}, [pa.field("radius_px", pa.float64())])
    columns = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "image": image_column(stamps, spec),
        "label": kinds,
        "recipe": ["toy"] * n,
        "seed": [3] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": np.where(np.arange(n) % 4 < 3, "train", "validation").tolist(),
        "radius_px": radius,
    }
    arrays = [columns[f.name] if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema]
    write_part(pa.table(arrays, schema=schema), folder, "part")
    return folder


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rings")
    return {"one": make(folder / "one", 800, ("large",)), "two": make(folder / "two", 800, ("large", "small"))}


def radius_px(stamps: np.ndarray) -> np.ndarray:
    """Radius of the brightest of rings half a pixel apart."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    radii = np.arange(0.5, 4.6, 0.1)
    shapes = np.exp(-2 * (np.hypot(x, y) - radii[:, None, None]) ** 2)
    shapes /= np.sqrt((shapes**2).sum((1, 2), keepdims=True))
    return radii[np.einsum("nyx,ryx->nr", stamps[:, 0], shapes).argmax(1)]


# network, rate, steps: as few as bring the radii near
FITS = {
    "gan": ({"width": 64, "latent": 8}, 1e-3, 200),
    "dcgan": ({"width": 8, "latent": 8}, 5e-3, 70),
    "wgan": ({"width": 8, "latent": 8}, 5e-3, 90),
    "stylegan": ({"width": 8, "latent": 8}, 1e-2, 60),
    "conditional": ({"width": 8, "latent": 8}, 5e-3, 70),
    "diffusion": ({"width": 8, "fold": 1, "steps": 6}, 1e-2, 50),
}
FAR = 0.8
"""Wasserstein distance of radii, in units of their spread, that every family stays below."""


def settings_of(family: str, *, epochs: int = 1, steps: int | None = None, **more) -> TrainSettings:
    model, rate, n_step = FITS[family]
    tables = {
        "model": model,
        "sampling": {"batch_size": 32, "steps_per_epoch": steps or n_step},
        "optim": {"epochs": epochs, "learning_rate": rate, "ema_decay": 0.9, "threads": 1, "weight_decay": 0.0},
        "generate": {"watched": 128},
    }
    return TrainSettings.model_validate(tables | more)


def made_by(folder: Path, family: str, **more) -> tuple[np.ndarray, np.ndarray]:
    """Surface brightness of what was made, and of what it is held against."""
    torch.set_num_threads(1)
    job = make_job(folder, family, "generate", "nowhere", settings_of(family, **more), seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_state", lambda path, state: None)
        _, _, outputs = loop.train_loop(job, World(), lambda *_: None)
    made, taken = (stretch_inverse(outputs[:, k], job.card.stretch) for k in (0, 1))
    return made, taken


def apart(made: np.ndarray, taken: np.ndarray) -> float:
    return wasserstein(radius_px(made), radius_px(taken))


@pytest.mark.parametrize("family", [name for name in FITS if name != "conditional"])
def test_rings_have_the_radii_of_the_training(rings, family):
    assert apart(*made_by(rings["one"], family)) < FAR


@pytest.mark.parametrize(
    ("family", "game", "part"),
    [("dcgan", NonSaturating, "made"), ("wgan", WassersteinPenalty, "made"), ("diffusion", Denoising, "apart")],
)
@pytest.mark.long
def test_with_a_broken_loss_they_have_not(rings, monkeypatch, family, game, part):
    own = getattr(game, part)
    monkeypatch.setattr(game, part, lambda *given: 0 * own(*given))
    assert apart(*made_by(rings["one"], family)) > 1.5 * FAR


def test_a_diffusion_model_learns_from_noise_as_strong_as_it_is_told():
    module = build("diffusion", 1, 13, 1, width=4)
    batch = {"image": torch.randn(400, 1, 13, 13), "condition": torch.zeros(400, 0)}
    for mean in (-3.0, 1.0):
        settings = GenerateSettings(log_sigma=mean)
        ((player, _),) = Denoising().players(module, module, settings, OptimSettings(), 1)
        sigma = player.forward(Turn({MAIN: module}, {}, {"train": batch}, 0, 0))["sigma"]
        assert torch.log(sigma).mean().item() == pytest.approx(mean, abs=5 * 1.6 / 20)  # 5 sigma


def test_a_conditional_generator_makes_what_is_asked_and_its_stamps_are_marked(rings, tmp_path):
    settings = settings_of("conditional", labels={"targets": ("radius_px",)})
    card = train(rings["two"], model="conditional", task="generate", out=tmp_path / "model", settings=settings, seed=1)
    assert card.outputs.classes == ("large", "small") and card.settings["n_condition"] == 4
    generator = Generator(tmp_path / "model", batch_size=16)
    small, large = (generator.make(range(40), seed=2, asked=Asked(name)).image_njy for name in ("small", "large"))
    assert radius_px(small).mean() < 2.1 < radius_px(large).mean()
    narrow = generator.make(range(40), seed=2, asked=Asked("large", {"radius_px": (2.5, 2.5)}))
    assert (narrow.values == 2.5).all() and radius_px(narrow.image_njy).mean() < radius_px(large).mean()

    made = write_generated(generator, tmp_path / "made", count=21, seed=2)
    again = Generator(tmp_path / "model").make([20, 3], seed=2)
    assert np.array_equal(made.read_images()[[20, 3]], again.image_njy)
    assert not np.array_equal(made.read_images()[:2], generator.make(range(2), seed=3).image_njy)
    assert set(made.column("split")) == {"train"} and set(made.column("generator")) == {f"model@{generator.digest}"}
    there = StampSet.open(rings["two"]).read_images(split="validation")
    assert made.images["image"].unit == "nJy" and 0.3 < made.read_images().std() / there.std() < 3
    for wrong, said in (
        ((1.0, float("inf")), "least number, then its largest"),
        ((20.0, 30.0), r"beyond what the generator was taught.*got='20:30'"),
    ):
        with pytest.raises(ConfigError, match=said):
            generator.make([0], seed=1, asked=Asked(None, {"radius_px": wrong}))
    ranged = Asked(None, {"radius_px": (2.5, 2.5)})
    assert (generator.make(range(9), seed=2, asked=ranged).values == 2.5).all()
    generator._known = {"radius_px": [[1.0, 3.6], []]}  # as if the second class had none
    of_both = generator.make(range(20), seed=2, asked=ranged)
    assert ((of_both.values[:, 0] == 2.5) == (of_both.label == 0)).all() and len(set(of_both.label)) == 2
    with pytest.raises(ConfigError, match="no training stamp of this label has the number"):
        generator.make([0], seed=1, asked=Asked("small", {"radius_px": (2.5, 2.5)}))
    with pytest.raises(ConfigError, match=r"not taught this number.*known='radius_px'"):
        generator.make([0], seed=1, asked=Asked(None, {"mag": (1, 2)}))

    joined = (Source(str(rings["two"])), Source(str(tmp_path / "made")))
    truth = make_job(joined, "small-cnn", "classify", tmp_path / "x", TrainSettings(), seed=1).truth
    assert (truth.train >= 800).sum() == 21 and (truth.validation < 800).all()
    with pytest.raises(DataError, match="nothing is judged on stamps that a generator made"):
        count_rows(made, None)
    (part,) = made.parts
    table = pq.read_table(part)
    moved = table.set_column(table.schema.names.index("split"), "split", pa.array(["test"] * 21))
    with pytest.raises(DataError, match="are for the split train alone"):
        write_part(moved, tmp_path / "moved", "part")
    pq.write_table(moved, part)
    with pytest.raises(DataError, match="are for the split train alone"):
        StampSet.open(tmp_path / "made")


@pytest.mark.parametrize("family", ["wgan", "diffusion"])
def test_a_killed_training_resumes_to_the_bit(rings, tmp_path, family):
    settings = settings_of(family, epochs=2, steps=6, generate={"watched": 8})

    def run(out: Path, **more):
        return train(rings["one"], model=family, task="generate", out=out, settings=settings, seed=3, **more)

    def kill(epoch, step, history):
        if (epoch, step) == (1, 4):
            raise KilledError

    run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", on_step=kill)
    run(tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed"))
    assert any(name.startswith("critic/optimizer") for name in whole) == (family == "wgan")
    assert set(whole) == set(resumed) and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole" / "made.png").stat().st_size > 1000


def test_what_cannot_be_learnt_is_refused(rings, tmp_path):
    def job(family="dcgan", data="one", **more):
        run_job(make_job(rings[data], family, "generate", tmp_path / "m", settings_of(family, **more), seed=1), {})

    with pytest.raises(ConfigError, match="stretch cannot be undone"):
        job(input={"stretch": "humvi"})
    with pytest.raises(ConfigError, match="a generator learns its augmentation"):
        job(augment={"noise_fraction": 0.5})
    with pytest.raises(ModelError, match=r"cannot be told a class.*labels.classes"):
        job(data="two")
    with pytest.raises(ModelError, match=r"has no opponent"):
        job("diffusion", method="gan")
    with pytest.raises(ModelError, match=r"not learnt so: leave --method out"):
        job(method="diffusion")
    # of stamps so small that the critic has one layer it has no norm either
    network = build("dcgan", 1, 16, 1, width=4)
    for game, asked in ((WassersteinPenalty(), {}), (NonSaturating(), {"penalty": 1.0})):
        with pytest.raises(ModelError, match=r"slopes are of single stamps.*batch norms.*generate.penalty = 0"):
            game.check_network(network, GenerateSettings(**asked))
    NonSaturating().check_network(network, GenerateSettings())
