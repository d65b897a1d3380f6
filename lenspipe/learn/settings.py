"""Settings of a training, typed; read from TOML by the commands."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from lenspipe.nn.outputs import TASKS
from lenspipe.store.urls import is_url
from lenspipe.toml import Table

LEAST_BLUR_PX = 0.3
"""Least sigma of a blur that is taken off: a narrower Gaussian leaves a hundredth of a pixel's contrast, or nothing."""


def less_is_better(number: str) -> bool:
    """Whether a number of the history, by its name, is a loss or an error."""
    errors = ("loss", "mae", "mse", "rmse", "nll", "l1", "huber", "noise_left", "distance")
    return number.endswith(errors) or "mae_" in number


class DataSettings(Table):
    """One of several data sets that a training reads as one (``[[data]]``)."""

    path: str
    """Folder of stamps with splits."""
    share: float | None = Field(default=None, gt=0)
    """Its share of the drawn rows, of every class where classes are balanced, relative to the others'; 1 where another
    has one, and where none has one all rows are drawn alike."""
    labels: tuple[str, ...] | None = None
    """Labels that count; rows with others are left out. All where null."""
    survey: str | None = None
    """Survey of the rows that do not name theirs."""


def each_once(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names as they are; raises `ValueError` where one comes twice."""
    if twice := sorted({name for name in names or () if (names or ()).count(name) > 1}):
        raise ValueError(f"named twice: {', '.join(twice)}")
    return names


class InputSettings(Table):
    """What the network is shown."""

    image: str | None = None
    """Image column of the data set; its first where null."""
    bands: tuple[str, ...] | None = None
    """Bands in the order of the input; those of the data set where null."""
    stamp_px: int | None = Field(default=None, ge=3)
    """Side of the network's stamp, cut from the middle; of the data set's parity. The data set's side where null."""
    pixel_scale_arcsec: float | None = Field(default=None, gt=0)
    """Pixel scale that the data set must have; whatever it has where null."""
    scale_tolerance: float = Field(default=0.1, ge=0, lt=1)
    """The card's: relative difference in pixel scale that is scored without resampling."""
    scale_range: tuple[float, float] = (0.75, 1.35)
    """Pixel scales that may be resampled to the data set's, in units of it."""
    stretch: Literal["humvi", "asinh", "log", "sqrt", "linear"] = "asinh"
    """Rule of the stretch (`lenspipe.nn.card.Stretch`)."""
    band_scales: tuple[float, ...] | None = None
    """Multipliers of the bands' surface brightness; one over the noise of the training split where null."""
    alpha: float = Field(default=0.2, gt=0)
    """Slope at zero intensity; with the default scales per unit of noise."""
    q: float = Field(default=1.0, gt=0)
    """Strength of the compression."""
    mix: tuple[tuple[float, ...], ...] | None = None
    """Rows of weights that turn the scaled bands into channels."""
    standardise: bool = False
    """Whether each stamp is brought to mean 0 and standard deviation 1 after the stretch."""
    smooth_residual: bool = False
    """Whether every band comes once more, less what a fitted smooth lens says: for substructure in lenses."""
    high_pass_px: float = Field(default=0.0, ge=0)
    """Sigma of a Gaussian; what it blurs is taken off after the stretch, so that faint structure is not drowned by what
    is smooth: for substructure in lenses. 0: as it is; else 0.3 at least."""
    high_pass_beside: bool = False
    """Whether the channels as they are come as well, before those less their blur."""
    channel_scales: tuple[float, ...] | Literal["measured"] | None = None
    """Multiplier of each channel after all else; `measured`: one over its standard deviation in training stamps. To a
    network a channel counts as much as it varies, so a faint one beside a bright one is learnt late without."""
    features: tuple[str, ...] = ()
    """Columns of numbers that the network takes beside the image (family ``hybrid``)."""

    @field_validator("bands", "features")
    @classmethod
    def _once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return each_once(names)

    @field_validator("high_pass_px")
    @classmethod
    def _leaves_something(cls, high_pass_px: float) -> float:
        if 0 < high_pass_px < LEAST_BLUR_PX:
            raise ValueError(
                f"a blur of less than {LEAST_BLUR_PX} pixels is the image itself, and nothing would be left"
            )
        return high_pass_px


class LabelSettings(Table):
    """What the network is to say."""

    lens_labels: tuple[str, ...] = ("lens",)
    """``find``: labels that count as a lens; every other label does not."""
    normal: tuple[str, ...] = ()
    """``anomaly``: labels that are trained on, all others are anomalies; everything is trained on where empty."""
    classes: tuple[str, ...] | None = None
    """``classify``, ``generate``: classes in order; all labels of the training split, sorted, where null."""
    targets: tuple[str, ...] = ()
    """``regress``: columns to predict; rows without a value for one of them are left out. ``generate``: columns of
    numbers that can be asked for, such as ``theta_e_arcsec``; a row may lack them."""
    uncertainty: Literal["none", "gaussian"] = "none"
    """``regress``: ``gaussian`` predicts a variance beside each value."""

    @field_validator("classes", "targets")
    @classmethod
    def _once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return each_once(names)


class AugmentSettings(Table):
    """Augmentation of a batch (`lenspipe.learn.augment_batch`)."""

    dihedral: bool = True
    """Flips and quarter turns, exact."""
    affine_fraction: float = Field(default=0.5, ge=0, le=1)
    """Part of the stamps that are shifted, zoomed and sheared, by bilinear interpolation."""
    shift: float = Field(default=0.1, ge=0, le=0.5)
    """Largest shift along each axis, in units of the stamp's side."""
    zoom_min: float = Field(default=0.75, gt=0, le=1)
    """Smallest part of the stamp's side that is enlarged to the whole."""
    shear: float = Field(default=0.2, ge=0, lt=1)
    """Largest shear."""
    brightness: float = Field(default=0.0, ge=0)
    """Standard deviation of a factor on all bands, in dex (0.1 is 25 %)."""
    band_brightness: float = Field(default=0.0, ge=0)
    """Standard deviation of a factor on each band, in dex: colours and zero-points that are a little off."""
    noise_fraction: float = Field(default=0.25, ge=0, le=1)
    """Part of the stamps with more noise."""
    noise: tuple[float, float] = (0.2, 2.0)
    """Range of the noise that is added, in units of the band's noise; uniform in its logarithm."""
    blur_fraction: float = Field(default=0.25, ge=0, le=1)
    """Part of the stamps with a wider PSF."""
    blur_px: float = Field(default=1.0, ge=0)
    """Largest sigma of the Gaussian that widens it, pixels."""
    background: float = Field(default=0.3, ge=0)
    """Standard deviation of a constant added to each band, in units of the band's noise."""
    gap_fraction: float = Field(default=0.05, ge=0, le=1)
    """Part of the stamps with a masked row or column of pixels, read as empty sky."""
    gap: float = Field(default=0.08, gt=0, lt=0.5)
    """Largest width of the gap, in units of the stamp's side."""


class SamplingSettings(Table):
    """Which stamps an epoch shows."""

    batch_size: int = Field(default=64, ge=2)
    """Stamps a step, over all workers."""
    steps_per_epoch: int | None = Field(default=None, ge=1)
    """Steps an epoch; as many as the training split fills where null."""
    balance: Literal["equal", "none"] = "equal"
    """``equal``: every class has the same share of an epoch, rare stamps come more than once. Not for ``regress``."""
    curriculum: str | None = None
    """Column by which lenses enter, large values first, such as ``theta_e_arcsec`` or ``n_pix_source``."""
    curriculum_start: float = Field(default=0.5, gt=0, le=1)
    """Part of them in the first epoch."""
    curriculum_epochs: int = Field(default=5, ge=1)
    """Epochs until all have entered."""
    window_mib: float = Field(default=64, gt=0)
    """Stamps are shuffled within windows of this many MiB of row groups, drawn anew each epoch;
    about three windows are held in memory."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Part of the training split that is used at all, for learning curves."""
    one_sided_surveys: bool = False
    """``find``: whether a survey may give lenses and no others, or others and no lenses: then the network learns to
    tell surveys."""


class LossSettings(Table):
    """What is minimised (`lenspipe.learn.losses`)."""

    name: (
        Literal["bce", "focal", "cross-entropy", "mse", "gaussian-nll", "huber", "l1", "l2", "l1+kl", "noise2noise"]
        | None
    ) = None
    """``bce`` or ``focal`` to find, ``cross-entropy`` to classify, ``mse`` or ``gaussian-nll`` to regress, ``huber``,
    ``l1``, ``l2``, ``l1+kl`` or ``noise2noise`` to denoise; the first of the task where null, ``gaussian-nll`` where
    variances are predicted."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of a label's weight that is spread evenly over the classes."""
    smooth_from_epoch: int = Field(default=0, ge=0)
    """Epochs without label smoothing before it begins."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """Exponent of the focal loss."""


class DenoiseSettings(Table):
    """Pairs of a short and a deep exposure that a denoiser learns from (`lenspipe.learn.denoise`)."""

    ratios: tuple[float, float] = (1.25, 8.0)
    """Least and largest ratio of their exposure times, uniform in its logarithm; what the model is made for."""
    patch_px: int | None = Field(default=None, ge=8)
    """Side of the patches that are drawn from the images; 64, or all of smaller stamps, where null."""
    drawn: bool = False
    """Whether the rest of a simulated deep exposure is drawn, and not taken as it is expected."""

    @model_validator(mode="after")
    def _ordered(self) -> DenoiseSettings:
        if not 1 <= self.ratios[0] < self.ratios[1]:
            raise ValueError("ratios are at least 1, the least first")
        return self


class EmbedSettings(Table):
    """An embedding that is learnt without labels (`lenspipe.learn.objectives.embed`)."""

    size: int = Field(default=128, ge=2)
    """Numbers that describe a stamp."""
    projection: int = Field(default=64, ge=2)
    """Width and size of the projection that the loss compares; it is thrown away after the training."""
    temperature: float = Field(default=0.2, gt=0)
    """``simclr``, ``prototypical``, ``umtra``: temperature of the softmax over pairs, or over distances."""
    ways: int = Field(default=16, ge=2)
    """``umtra``: stamps of a made-up task."""
    hidden: float = Field(default=0.75, gt=0, lt=1)
    """``mae``: part of the patches that is hidden."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what came later is left out where it is the default, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        later = {"ways": 16, "hidden": 0.75}
        return {k: v for k, v in whole.items() if not (info.mode == "json" and later.get(k) == v)}


class DeflectSettings(Table):
    """Small masses that bend the arcs of a stamp (`lenspipe.learn.deflect_batch`)."""

    radius_arcsec: tuple[float, float] = (0.1, 0.6)
    """Range of the Einstein radius of all masses together; uniform in its logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> DeflectSettings:
        if not 0 < self.radius_arcsec[0] <= self.radius_arcsec[1]:
            raise ValueError("radius_arcsec is a range of positive radii, the least first")
        return self


class ClusterSettings(Table):
    """Clusters that are found without labels (`lenspipe.learn.objectives.cluster`)."""

    size: int | None = Field(default=None, ge=2)
    """Clusters; as many as the training split has labels where null."""
    neighbours: int = Field(default=20, ge=1)
    """Nearest stamps in the embedding, which are to lie in one cluster."""
    entropy: float = Field(default=5.0, ge=0)
    """Weight of the entropy of the clusters' shares, which keeps them of one size."""
    self_label_part: float = Field(default=0.3, ge=0, lt=1)
    """Part of the epochs, the last ones, in which stamps of which the network is sure teach it."""
    threshold: float = Field(default=0.99, ge=0, le=1)
    """Probability from which it is sure."""


class GenerateSettings(Table):
    """Stamps that look like those of the training (`lenspipe.learn.generate`)."""

    penalty: float | None = Field(default=None, ge=0)
    """Weight of the penalty on the critic's slopes: 10 for ``wgan``, 1 for ``stylegan`` where null; ``gan`` has none
    unless it is said here."""
    critic_steps: int | None = Field(default=None, ge=1)
    """Steps of the critic, each on another batch, for one of the generator; 5 for ``wgan``, else 1 where null."""
    critic_rate: float = Field(default=1.0, gt=0)
    """The critic's learning rate, in units of the generator's."""
    log_sigma: float = -0.3
    """``diffusion``: mean of the logarithm of the noise in training, in units of the stamps' spread. Lower teaches what
    is bright more finely, higher the flux of a stamp, which a network that is told it needs less."""
    watched: int = Field(default=256, ge=2)
    """Stamps that are generated after each epoch to be measured against as many of the validation split."""


class AdaptSettings(Table):
    """A second domain without labels that a network is to serve (`lenspipe.learn.adapt`)."""

    target: str = ""
    """Folder of the target's stamps with splits. Labels of its training split are read by ``fine-tune`` and
    ``target-trained`` alone; those of its validation split judge, and choose nothing."""
    source_part: float = Field(default=0.3, ge=0, le=1)
    """Part of the epochs that come first and see the source alone; at least one epoch."""
    weight: float | None = Field(default=None, ge=0)
    """Weight of the method's loss beside the source's; the method's own where null."""
    statistics: Literal["both", "own"] = "both"
    """``coral``, ``mmd``, ``dann``, ``wdgrl``, ``self-ensemble``: batch norms see ``both`` domains together, or each
    domain by its ``own``, and the network keeps the target's, as always with ``adabn``."""
    hidden: int = Field(default=64, ge=1)
    """``dann``, ``adda``, ``wdgrl``: width of the opponent's two hidden layers."""
    rival_rate: float = Field(default=1.0, gt=0)
    """Their opponent's learning rate, in units of the network's."""
    threshold: float = Field(default=0.9, ge=0, le=1)
    """``adamatch``, ``self-ensemble``: how sure an answer must be to teach."""
    n_label: int = Field(default=20, ge=1)
    """``fine-tune``: labelled stamps per class of the target's training split, drawn with the seed."""

    @field_validator("target")
    @classmethod
    def _absolute(cls, target: str) -> str:
        if not target or is_url(target):
            return target
        return os.path.abspath(target)  # which a worker elsewhere understands


class OptimSettings(Table):
    """How it is minimised (`lenspipe.learn.fit`)."""

    epochs: int = Field(default=20, ge=1)
    """Epochs in all."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam with L2 regularisation."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Weight decay of matrices and kernels."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Part of the steps over which the learning rate rises."""
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    """Decay a step of the averaged weights; 0 keeps the last weights."""
    monitor: str | None = None
    """Number of the history whose best epoch is kept (``auc``: highest, ``loss``-like: lowest); the last where null."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better `monitor` after which training stops; needs `monitor`."""
    frozen_epochs: int = Field(default=1, ge=0)
    """With pretrained weights: epochs that train only the tensors that were not loaded."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 autocast on a GPU, float32 on a CPU. With it and `channels_last` CPUs with such instructions
    gain a factor of 2 to 2.5, except in equivariant networks; others lose one of 2."""
    channels_last: bool | None = None
    """Whether pixels and kernels lie with their channels side by side; on a GPU, and to denoise, where null."""
    compile: bool = False
    """Whether the network goes through torch.compile."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch per worker; where null its part of the cores that other work leaves free when it begins."""

    @model_validator(mode="after")
    def _consistent(self) -> OptimSettings:
        if self.patience is not None and self.monitor is None:
            raise ValueError("patience needs monitor, such as 'auc' or 'val_loss'")
        if self.monitor in ("epoch", "loss", "learning_rate", "seconds", "stamps_per_s"):
            # these differ between workers, which must agree when to stop
            raise ValueError("monitor takes a number of the validation split, such as 'auc' or 'val_loss'")
        return self


class TrainSettings(Table):
    """A training's settings file."""

    name: str | None = None
    """Name in the card; the output folder's where null."""
    method: str | None = None
    """How the task is learnt, such as ``simclr`` to embed, ``energy`` to find anomalies, or how a domain is adapted to;
    the task's first where null."""
    data: tuple[DataSettings, ...] = ()
    """Data sets that are read as one; those of ``--data`` stand in their place."""
    model: dict[str, int | float | bool | str | list[int]] = {}
    """Settings of the network family."""
    input: InputSettings = InputSettings()
    """What the network is shown."""
    labels: LabelSettings = LabelSettings()
    """What it is to say."""
    augment: AugmentSettings | None = None
    """Augmentation; where null all of it, for ``regress`` the exact dihedral views alone."""
    sampling: SamplingSettings = SamplingSettings()
    """Which stamps an epoch shows."""
    loss: LossSettings = LossSettings()
    """What is minimised."""
    optim: OptimSettings = OptimSettings()
    """How it is minimised."""
    denoise: DenoiseSettings | None = None
    """Pairs of exposures, to denoise; the defaults where null."""
    embed: EmbedSettings | None = None
    """Embedding and projection, to embed; the defaults where null."""
    cluster: ClusterSettings | None = None
    """Number of clusters and how they are found, to cluster; the defaults where null."""
    generate: GenerateSettings | None = None
    """Generator and critic, to generate; the defaults where null."""
    deflect: DeflectSettings | None = None
    """Masses that bend stamps, for the method ``deflect``; the defaults where null."""
    adapt: AdaptSettings | None = None
    """The target of a domain adaptation; `method` says which."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what was not there once is left out where it is not said: older requests and trials stay the same."""
        whole: dict[str, Any] = handler(self)
        if info.mode != "json":
            return whole
        unsaid = {name for name in (*TASKS, "method", "deflect", "adapt") if whole.get(name, ...) is None} | (
            {"data"} if not self.data else set()
        )
        if not self.labels.normal:
            whole["labels"] = {k: v for k, v in whole["labels"].items() if k != "normal"}
        later = ("smooth_residual", "high_pass_px", "high_pass_beside", "channel_scales")
        whole["input"] = {k: v for k, v in whole["input"].items() if k not in later or v}
        if not self.sampling.one_sided_surveys:
            whole["sampling"] = {k: v for k, v in whole["sampling"].items() if k != "one_sided_surveys"}
        return {name: value for name, value in whole.items() if name not in unsaid}
