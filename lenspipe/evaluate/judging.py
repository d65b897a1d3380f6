"""Open the models that are judged on one data set, and stream its stamps through their judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judges import judge_for
from lenspipe.evaluate.judges.contract import Judge, JudgeSettings
from lenspipe.evaluate.stream import Member, count_rows, iter_stamps
from lenspipe.learn.fitted import fit_of
from lenspipe.nn.card import find_model, read_card
from lenspipe.nn.committee import Committee, is_committee, open_committee
from lenspipe.nn.fitted import ODDS_WAY
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import JoinedStamps, each_of


def open_members(
    models: Sequence[str | Path],
    stamps: StampSet,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int = 1,
) -> list[Member[Any, Any]]:
    """
    Load models that are to be judged on one data set.

    Raises
    ------
    ConfigError
        No model, or models of different tasks.
    ModelError, DataError
        A model is broken, or the stamps do not fit it.
    """
    members: list[Member[Any, Any]] = []
    for model in models:
        folder = find_model(model)
        judge = judge_for(read_card(folder).outputs)
        predictor = judge.load(folder, device=device, batch_size=batch_size, threads=threads)
        card = predictor.card
        if missing := [name for name in judge.needs(card, card.outputs) if name not in stamps.schema.names]:
            raise DataError(
                "the data set lacks columns that the model needs", model=card.name, missing=",".join(missing)
            )
        said = fit_of(stamps) if card.fitted is not None else None
        if card.fitted is not None and said is not None and (differ := card.fitted.unlike(said)):
            again = "SIMULATED" if "signals" in differ else "MODEL"
            signals = card.fitted.signals
            if signals and signals.way != ODDS_WAY:
                raise DataError(
                    "the model learnt from odds that this version makes otherwise: train it again on stamps that are "
                    "fitted anew",
                    model=card.name,
                )
            more = ""
            if signals and again == "SIMULATED":
                fit = card.fitted
                more = f" --signals {signals.recipe} --draws {signals.draws}" + " --point-masses" * fit.point_masses
                more += f" --finer {fit.finer}" + (
                    f" --clumps {fit.clumps} --rounds {fit.rounds}" if fit.clumps else ""
                )
            raise DataError(
                f"the stamps were not fitted as those of the model's training: run `lenspipe stamps fit STAMPS --like "
                f"{again}{more} --out NEW`",
                model=card.name,
                differ=",".join(differ),
            )
        taken = [member.name for member in members]
        name, number = card.name, 2
        while name in taken:
            name, number = f"{card.name} ({number})", number + 1
        images = {judge.image_of(card, one) for one in each_of(stamps)}
        if len(images) > 1:
            raise ConfigError("the model takes images of other names in two data sets", images=",".join(sorted(images)))
        members.append(Member(name, folder, card.outputs, predictor, images.pop()))
    tasks = sorted({member.card.task for member in members})
    if len(tasks) != 1:
        raise ConfigError("models of one task are compared; evaluate the others apart", tasks=" ".join(tasks))
    return members


def with_committees(models: Sequence[str | Path]) -> tuple[list[str | Path], list[tuple[Committee, slice]]]:
    """Models with the folders of committees replaced by their members', and where each committee's members stand."""
    single: list[str | Path] = []
    committees = []
    for model in models:
        if is_committee(model):
            committee = open_committee(model)
            committees.append((committee, slice(len(single), len(single) + len(committee.folders))))
            single += committee.folders
        else:
            single.append(model)
    return single, committees


def judged(
    members: Sequence[Member[Any, Any]],
    stamps: StampSet,
    settings: JudgeSettings,
    *,
    on_rows: Callable[[pa.Table], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judge[Any, Any]:
    """
    Stream the labelled stamps of a split through all models once, in bounded memory.

    Parameters
    ----------
    members : sequence of Member
        Of one task (`open_members`).
    stamps : StampSet
    settings : JudgeSettings
    on_rows : callable
        Called with the rows of ``scores.parquet`` of each batch.
    progress : callable
        Called with stamps done and stamps in all.

    Returns
    -------
    Judge
        With everything counted.

    Raises
    ------
    ConfigError
        The models or the settings do not go together.
    DataError
        The split is empty, or its labels are not the models'.
    """
    judge = judge_of(members, stamps, settings)
    stream(judge, on_rows=on_rows, progress=progress)
    return judge


def judge_of(members: Sequence[Member[Any, Any]], stamps: StampSet, settings: JudgeSettings) -> Judge[Any, Any]:
    """The judge of some models, with nothing counted; raises `ConfigError` where they do not go together."""
    judge = judge_for(members[0].outputs)
    if isinstance(stamps, JoinedStamps) and stamps.mixed and not judge.takes_any_grid:
        raise ConfigError(
            "only finders are judged on data sets of several bands, sizes or pixel scales at once; judge them apart",
            task=members[0].card.task,
            data=stamps.title,
        )
    return judge(members, stamps, settings)


def stream(
    judge: Judge[Any, Any], *, on_rows: Callable[[pa.Table], None], progress: Callable[[int, int], None]
) -> None:
    """Count all stamps of a judge's split; see `judged`."""
    split, images = judge.settings.split, [member.image for member in judge.members]
    done, total = 0, count_rows(judge.stamps, split)
    progress(done, total)
    for reading in each_of(judge.stamps):
        judge.reading = reading
        for table, pixels in iter_stamps(reading, images, judge.columns(), split=split):
            for rows in judge.count(table, pixels):
                on_rows(rows)
            done += table.num_rows
            progress(done, total)
