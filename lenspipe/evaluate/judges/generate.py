"""Generators: whether what they make is new, looks like what was taken, and follows the physics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError, LenspipeError
from lenspipe.evaluate.generator_gates import NearestOfTraining, Sets, likeness, physics, verdict_of
from lenspipe.evaluate.judges.contract import (
    Calibrated,
    CalibrateSettings,
    Judge,
    JudgeSettings,
    Metrics,
    Printed,
    Progress,
    demand_no_accuracy,
    file_stem,
)
from lenspipe.evaluate.stream import Member, Pixels, count_rows, iter_stamps, numbers, words
from lenspipe.infer.generate import Generator
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.infer.stamps import stamp_brightness, stamp_input
from lenspipe.nn.card import ModelCard, find_model, read_card, shipped_models
from lenspipe.nn.outputs import Generate
from lenspipe.nn.preprocess import network_input
from lenspipe.report import plots
from lenspipe.report.page import Section, number
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import digest_of_data

GenerateMember = Member[Generate, Generator]
MOST_BYTES = 128 << 20
"""Of the pixels of each set that are held in memory; of a longer one the first. Copies are looked for in all."""
SEED = 12345
N_SHOWN = 36
FEWEST = 4
"""Stamps without which there is no third neighbour; a class needs more (`lenspipe.evaluate.generator_gates.LEAST`)."""


class GenerateJudge(Judge[Generate, Generator]):
    """Makes as many stamps as are held out, of the same classes and numbers, and compares."""

    audited = False

    def __init__(self, members: Sequence[GenerateMember], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        self._held: dict[str, list[tuple[Pixels, NDArray[np.object_], NDArray[np.float64]]]] = {}
        self._shown: dict[str, tuple[Pixels, Pixels]] = {}

    @classmethod
    def load(cls, folder: Path, *, device: str, batch_size: int | None, threads: int) -> Generator:
        """A checkpoint ready to make stamps."""
        return Generator(folder, device=device, batch_size=batch_size, threads=threads)

    @classmethod
    def needs(cls, card: ModelCard, outputs: Generate) -> tuple[str, ...]:
        """The numbers that can be asked for."""
        return outputs.targets

    def check(self) -> None:
        """Raise `ConfigError` where the data are not those of the training, or are what was learnt from."""
        super().check()
        digest = digest_of_data(self.stamps)
        for member in self.members:
            if member.card.training.get("data_digest") != digest:
                raise ConfigError(
                    "a generator is judged on the data set that it was trained on, whose other splits it has not seen: "
                    "whether it copies is a question of its training stamps",
                    model=member.name,
                    trained_on=str(member.card.training.get("data")),
                    data=self.stamps.title,
                )
        if self.settings.split in (None, "train"):
            raise ConfigError("a generator has seen the split train: judge it on test or validation")
        self._describer = describer(self.settings.features, self.members[0], self.stamps)

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Keep pixels, labels and numbers of what is held out; rows say what was."""
        for member in self.members:
            kept = self._held.setdefault(member.name, [])
            if sum(some.nbytes for some, _, _ in kept) < MOST_BYTES:
                kept.append(_seen(member, self.stamps, table, pixels))
            yield pa.table(
                {"model": [member.name] * table.num_rows, "stamp_id": table["stamp_id"], "label": table["label"]}
            )

    def metrics(self) -> dict[str, Metrics]:
        """By model; raises `DataError` where nothing of its classes is held out."""
        return {member.name: self._metrics(member) for member in self.members}

    def _metrics(self, member: GenerateMember) -> Metrics:
        held, label, values = _joined(self._held[member.name])
        if len(held) < FEWEST:
            raise DataError(f"the gates need {FEWEST} held-out stamps of the generator's classes", held_out=len(held))
        order = {name: k for k, name in enumerate(member.outputs.classes)}
        made = member.predictor.make_as(np.array([order[x] for x in label]), values, seed=SEED)
        self._shown[member.name] = made[:N_SHOWN], held[:N_SHOWN]
        bands, scale = member.card.bands, member.card.pixel_scale_arcsec
        of_made, of_held = (described(self._describer, x, bands, scale) for x in (made, held))
        in_pixels = NearestOfTraining(_flat(_small(made, member.card)), _flat(_small(held, member.card)))
        in_features = NearestOfTraining(of_made, of_held)
        views = (member.card.training.get("augment") or {}).get("dihedral", True)
        kept, n_train, n_bytes = list[tuple[Pixels, Pixels, NDArray[np.object_]]](), 0, 0
        for pixels, labels, _ in self._training(member):
            features, small = described(self._describer, pixels, bands, scale), _small(pixels, member.card)
            in_features.see(features)
            in_pixels.see(np.concatenate([_flat(_view(small, k)) for k in range(8 if views else 1)]))
            if n_bytes < MOST_BYTES:
                kept.append((pixels, features, labels))
            n_train, n_bytes = n_train + len(pixels), n_bytes + pixels.nbytes
        if n_train < FEWEST:
            raise DataError(f"the gates need {FEWEST} training stamps of the generator's classes", train=n_train)
        train, of_train_set, of_train = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        shuffled = np.random.default_rng(SEED).permutation(len(train))
        train, of_train_set, of_train = train[shuffled], of_train_set[shuffled], of_train[shuffled]
        sets = {
            name: Sets(made[label == name], held[label == name], train[of_train == name])
            for name in member.outputs.classes
        }
        like = likeness(of_made, of_held, of_train_set)
        copied = {"pixels": in_pixels.verdict(), "features": in_features.verdict()}
        laws = physics(sets, bands)
        reasons = verdict_of(like, copied, laws)
        return {
            "n": len(held),
            "n_train": n_train,
            "features": f"{self._describer.card.name}@{self._describer.digest}",
            "likeness": like,
            "memorisation": copied,
            "physics": laws,
            "passed": not reasons,
            "reasons": reasons,
        }

    def _training(self, member: GenerateMember) -> Iterator[tuple[Pixels, NDArray[np.object_], NDArray[np.float64]]]:
        """All training stamps of the generator's classes, some at a time."""
        for table, pixels in iter_stamps(self.stamps, [member.image], member.outputs.targets, split="train"):
            some = _seen(member, self.stamps, table, pixels)
            if len(some[0]):
                yield some

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """The verdict, a table of each gate, and stamps that were made above stamps that were taken."""
        sections = []
        for name, m in metrics.items():
            like = m["likeness"]
            rows = [
                ["Fréchet distance", number(like["frechet"]), number(like["frechet_train"]), ""],
                ["precision", number(like["precision"]), number(like["precision_train"]), _kept(like, "precision")],
                ["recall", number(like["recall"]), number(like["recall_train"]), _kept(like, "recall")],
            ]
            copies = [
                [
                    where,
                    f"{c['share']:.1%}",
                    f"{c['most']:.0%}",
                    number(c["distance_made"]),
                    number(c["distance_held"]),
                    _yes(c),
                ]
                for where, c in m["memorisation"].items()
            ]
            laws = [
                [
                    row["class"],
                    row["quantity"],
                    number(row["found"]),
                    number(row["reference"]),
                    number(row["most"]),
                    _yes(row),
                ]
                for row in m["physics"]["rows"]
            ]
            tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [
                (["features", "made", "training stamps", "passed"], rows),
                (["nearest training stamp", "copied", "at most", "distance, made", "held out", "passed"], copies),
                (["class", "quantity", "found", "training stamps", "at most", "passed"], laws),
            ]
            verdict = "Passed." if m["passed"] else f"FAILED: {'; '.join(m['reasons'])}."
            text = f"{verdict} {m['n']} held-out and {m['n_train']} training stamps; features of {m['features']}."
            spec = next(member for member in self.members if member.name == name).card
            shown = [network_input(x / np.float32(spec.pixel_scale_arcsec**2), spec.stretch) for x in self._shown[name]]
            picture = (f"{file_stem(name)}_made.png", plots.side_by_side(*shown))
            sections.append(Section(name, text, tables, [picture]))
        return sections

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """The verdict, likeness, copies, and the worst of the physics in units of its limit."""
        like = metrics["likeness"]
        worst = max((row["found"] / row["most"] for row in metrics["physics"]["rows"]), default="")
        return {
            "passed": metrics["passed"],
            **{key: like[key] for key in ("frechet", "frechet_train", "precision", "recall")},
            **{f"copied_{where}": c["share"] for where, c in metrics["memorisation"].items()},
            "physics_passed": metrics["physics"]["passed"],
            "physics_worst": worst,
        }

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """One row per model: each gate, and the verdict."""
        rows = []
        for name, m in metrics.items():
            like, laws = m["likeness"], m["physics"]["rows"]
            copied = max(c["share"] for c in m["memorisation"].values())
            kept = f"{sum(row['passed'] for row in laws)} of {len(laws)}"
            shown = [number(like[key]) for key in ("frechet", "frechet_train", "precision", "recall")]
            rows.append([name, *shown, f"{copied:.1%}", kept, "passed" if m["passed"] else "FAILED"])
        heading = ["model", "Fréchet", "of training", "precision", "recall", "copied", "physics kept", "gates"]
        reasons = [f"{name}: {reason}" for name, m in metrics.items() for reason in m["reasons"]]
        return Printed(heading, rows, "\n".join(reasons) or None)

    @classmethod
    def calibrate(
        cls, member: GenerateMember, stamps: StampSet, settings: CalibrateSettings, progress: Progress
    ) -> Calibrated:
        """Run the gates, for the card: a generator that fails is kept as failed."""
        demand_no_accuracy(member, settings)
        judge = cls([member], stamps, JudgeSettings(split=settings.split, features=settings.features))
        done, total = 0, count_rows(stamps, settings.split)
        for table, pixels in iter_stamps(stamps, [member.image], judge.columns(), split=settings.split):
            for _ in judge.count(table, pixels):
                done += table.num_rows
            progress("gates", done, total)
        found = judge.metrics()[member.name]
        card = member.card.model_copy(update={"metrics": member.card.metrics | {"gate": found}})
        verdict = "passed its gates" if found["passed"] else "FAILED its gates"
        return Calibrated(card, (f"{member.name}: {verdict}", *(f"  {reason}" for reason in found["reasons"])))


def describer(name: str | None, member: GenerateMember, stamps: StampSet) -> LoadedNetwork:
    """
    The network whose features describe stamps: the one that is named, or the first shipped one that takes them.

    Raises
    ------
    ConfigError
        No shipped one takes them, or the one named is a generator.
    """
    spec = stamps.images[member.image]
    blank = np.zeros((1, *spec.shape), np.float32)
    for model in [name] if name is not None else shipped_models():
        folder = find_model(model)
        card = read_card(folder)
        try:
            if card.outputs.n_extra_channel or isinstance(card.outputs, Generate):
                raise ConfigError("this model has no features of a stamp: name a classifier, finder or embedding")
            stamp_input(blank, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=card)
        except LenspipeError:
            if name is not None:
                raise
            continue
        return LoadedNetwork(folder)
    raise ConfigError(
        "no shipped model takes these stamps: name one whose features describe them by --features, such as a "
        "classifier that was trained on them",
        bands=",".join(spec.bands),
    )


def described(model: LoadedNetwork, stamps_njy: Pixels, bands: Sequence[str], scale_arcsec: float) -> Pixels:
    """Features ``(n, size)`` of stamps."""
    parts = [
        model.features(
            stamp_input(stamps_njy[i : i + 256], bands=bands, pixel_scale_arcsec=scale_arcsec, card=model.card)
        )
        for i in range(0, len(stamps_njy), 256)
    ]
    return np.concatenate(parts)


def _seen(
    member: GenerateMember, stamps: StampSet, table: pa.Table, pixels: dict[str, Pixels]
) -> tuple[Pixels, NDArray[np.object_], NDArray[np.float64]]:
    """Pixels on the card's grid in nJy, labels and numbers of the rows whose label the generator makes."""
    spec, card = stamps.images[member.image], member.card
    label = words(table, "label")
    known = np.isin(label.astype(str), member.outputs.classes)
    brightness = stamp_brightness(
        pixels[member.image][known], bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=card
    )
    targets = [numbers(table, name)[known] for name in member.outputs.targets]
    values = np.stack(targets, axis=1) if targets else np.empty((int(known.sum()), 0))
    return brightness * np.float32(card.pixel_scale_arcsec**2), label[known], values


def _joined(
    parts: Sequence[tuple[Pixels, NDArray[np.object_], NDArray[np.float64]]],
) -> tuple[Pixels, NDArray[np.object_], NDArray[np.float64]]:
    pixels, labels, values = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels), np.concatenate(values)


def _small(stamps_njy: Pixels, card: ModelCard) -> Pixels:
    """Stretched stamps, two pixels a side averaged: half the noise, and what a copy looks like is left."""
    seen = network_input(stamps_njy / np.float32(card.pixel_scale_arcsec**2), card.stretch)
    side = seen.shape[-1] // 2 * 2
    halves = seen[..., :side, :side].reshape(*seen.shape[:2], side // 2, 2, side // 2, 2)
    small: Pixels = halves.mean(axis=(3, 5))
    return small


def _view(stamps: Pixels, number: int) -> Pixels:
    turned = np.rot90(stamps, number % 4, axes=(2, 3))
    return turned[..., ::-1] if number >= 4 else turned


def _flat(stamps: Pixels) -> Pixels:
    return stamps.reshape(len(stamps), -1)


def _kept(like: Mapping[str, Any], name: str) -> str:
    return _yes({"passed": like[name] >= like["least"] * like[f"{name}_train"]})


def _yes(row: Mapping[str, Any]) -> str:
    return "yes" if row["passed"] else "NO"
