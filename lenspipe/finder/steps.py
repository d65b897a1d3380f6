"""The steps of a finder that know the survey: hosts, stamps, and rounds of training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.run_rows import Run
from lenspipe.errors import ConfigError, DataError
from lenspipe.finder.areas import Areas
from lenspipe.finder.choose import Chosen, choose, cut_tasks
from lenspipe.finder.cut import Cutter
from lenspipe.finder.graded import Graded, read_graded
from lenspipe.finder.known import KNOWN, write_known
from lenspipe.finder.probe import border_probe, warning_of
from lenspipe.finder.recipe import survey_recipe
from lenspipe.finder.request import FinderRequest, Runners
from lenspipe.finder.rounds import Base, digest_of_files, together, train_members, write_facts, write_round_stamps
from lenspipe.finder.scores import measured, score_stamps
from lenspipe.image.psf_table import PSF_FILE
from lenspipe.nn.card import CHECKPOINT_FILES, TRAINING_SET_FILE, files_of, read_card
from lenspipe.nn.committee import COMMITTEE_FILE, write_committee
from lenspipe.rundir import atomic_path, read_json, utc_now, write_json
from lenspipe.runner import Progress
from lenspipe.scan.after.context import context_of
from lenspipe.scan.plan import tasks_of
from lenspipe.simulate import run as simulating
from lenspipe.simulate.recipe import HostTable, Recipe
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.tables import read_parquet

HOSTS, STAMPS, RECORD, PAGE = "hosts", "stamps", "finder.json", "finder.html"
ASKED = "asked.json"
"""What a round was begun for."""
HOST_MARGIN_PX = 6
PROBED = 3000
"""Stamps that the probe of borders looks at."""


@dataclass(frozen=True)
class Maker:
    """The steps that know the survey."""

    request: FinderRequest
    run: Run
    out: Path
    bands: tuple[str, ...]
    bases: tuple[Base, ...]
    runners: Runners
    progress: Progress
    replaced: dict[str, str] = field(default_factory=dict)
    """Band of the base's card to the survey's that stands in for it."""

    @property
    def name(self) -> str:
        """The folder's."""
        return self.out.name

    @property
    def survey(self) -> str:
        """Name of the run's survey."""
        return str(self.run.record["request"]["survey"]["name"])

    def scale_arcsec(self) -> float:
        """Pixel scale of most of the run's tiles."""
        known = self.run.shards["pixel_scale_arcsec"].to_numpy(zero_copy_only=False).astype(float)
        return float(np.nanmedian(known))

    def grid(self) -> tuple[int, float]:
        """Side and pixel scale of the stamps: of the survey, or of the finder that learns on."""
        if self.bases:
            return self.bases[0].card.stamp_px, self.bases[0].card.pixel_scale_arcsec
        scale = self.scale_arcsec()
        return 2 * int(np.ceil(self.request.settings.stamps.side_arcsec / scale / 2)) + 1, scale

    def psf(self) -> dict[str, float]:
        """FWHM of each band of the run that is known, arcsec: the median of what its stars gave, else the layout's."""
        known = dict(self.run.record["request"]["survey"].get("psf_fwhm_arcsec") or {})
        if not (self.run.folder / PSF_FILE).exists():
            return known
        table = read_parquet(self.run.folder / PSF_FILE, columns=["band", "fwhm_arcsec"])
        band, fwhm = (table[name].to_numpy(zero_copy_only=False) for name in table.column_names)
        fwhm = fwhm.astype(float)
        seen = np.isfinite(fwhm)
        return known | {str(b): float(np.median(fwhm[seen & (band == b)])) for b in dict.fromkeys(band[seen])}

    def chosen(self, sources: pa.Table) -> Chosen:
        """Hosts and negatives among the sources."""
        size, scale = self.grid()
        widths = [self.psf()[band] for band in self.run.bands if band in self.psf()]
        return choose(
            sources,
            self.run.bands,
            self.request.settings.hosts,
            psf_fwhm_arcsec=min(widths) if widths else None,
            margin_arcsec=size * scale / np.sqrt(2),
            avoid=avoided(self.request.lists),
            seed=self.request.seed,
        )

    def hosts(self, sources: pa.Table, troubles: list[str]) -> dict[str, Any]:
        """Choose and cut hosts; a record of what was found."""
        path = self.out / "hosts.json"
        if path.exists():
            return {"uncut": []} | read_json(path)  # not told apart by older versions
        psf = self.psf()
        if missing := [band for band in self.bands if band not in psf]:
            raise ConfigError(
                "the PSF of a band is not known, as the run shows too few stars, so no arc can be painted: state it by "
                f"--set survey.psf_fwhm_arcsec.{missing[0]}=FWHM when scanning",
                bands=" ".join(missing),
            )
        chosen = self.chosen(sources)
        size, scale = self.grid()
        survey_scale = self.scale_arcsec()
        recipe = self.recipe(np.ones(len(self.bands)))
        shrink = recipe.hosts.shrink[0] if recipe.hosts else 1.0
        side = 2 * int(np.ceil((size + HOST_MARGIN_PX) * scale / survey_scale / shrink / 2)) + 1
        spec = ImageSpec(self.bands, side, survey_scale)
        cutter = Cutter(
            context_of(self.run),
            spec,
            tuple(psf[band] for band in self.bands),
            self.request.settings.hosts.asymmetry_max,
            self.survey,
            chosen.areas,
            self.out / HOSTS,
        )
        tasks = tasks_of(self.run.plan)
        todo = cut_tasks(chosen, sources, tasks, n_sky=self.request.settings.hosts.max_sky, seed=self.request.seed)
        self.progress.stage("Hosts", len(todo))
        uncut: list[str] = []
        with self.runners.executor() as executor:
            for number, (_, trouble) in executor.each("hosts", cutter, todo, scratch=self.out):
                self.progress.advance()
                if trouble:
                    uncut.append(f"{todo[number].task.shard.shard_id}: {trouble}")
        record = {
            "run": str(self.run.folder.absolute()),
            "run_id": self.run.run_id,
            "survey": self.survey,
            "bands": list(self.bands),
            "failures": troubles,
            "uncut": uncut,
            **chosen.record(),
            "psf_fwhm_arcsec": {band: psf[band] for band in self.bands},
            "areas": {"order": chosen.areas.order, "margin_arcsec": chosen.areas.margin_arcsec}
            | {"cells": {str(k): v for k, v in chosen.areas.split.items()}},
        }
        data = StampSet.open(self.out / HOSTS)
        label, refused, split = (data.column(name) for name in ("label", "refused", "split"))
        record["hosts_by_split"] = {
            str(s): int(((label == "early") & (split == s)).sum()) for s in ("train", "validation", "test")
        }
        record["refused"] = {str(t): int((refused == t).sum()) for t in dict.fromkeys(refused) if t}
        record["sky_rms_njy"] = {
            band: float(np.nanmedian(data.column(f"sky_rms_{band}_njy").astype(float))) for band in self.bands
        }
        if lacking := [s for s, n in record["hosts_by_split"].items() if not n]:
            raise DataError(
                "no host lies in the sky of a split: scan more sky, or give that split more by hosts.fractions",
                split=" ".join(lacking),
                **record["hosts_by_split"],
            )
        write_json(path, record)
        hosts = ", ".join(f"{n} {s}" for s, n in record["hosts_by_split"].items())
        self.progress.say(f"Hosts: {hosts}; {record['red_sequence']}; refused {sum(record['refused'].values())}")
        return record

    def recipe(self, sky_rms_njy: Sequence[float] | NDArray[np.float64]) -> Recipe:
        """The recipe of the stamps."""
        size, scale = self.grid()
        psf = self.psf()
        recipe = survey_recipe(
            self.survey,
            self.bands,
            size_px=size,
            pixel_scale_arcsec=scale,
            psf_fwhm_arcsec=[psf.get(band, 1.0) for band in self.bands],
            sky_rms_njy=list(map(float, sky_rms_njy)),
            survey_scale_arcsec=self.scale_arcsec(),
        )
        classes = {k: v for k, v in (recipe.classes | self.request.settings.stamps.classes).items() if v > 0}
        hosts = (recipe.hosts or HostTable()).model_dump() | self.request.settings.stamps.painting()
        return Recipe.model_validate(recipe.model_dump() | {"classes": classes, "hosts": hosts})

    def stamps(self) -> dict[str, Any]:
        """Paint the stamps, and ask whether their borders tell classes apart."""
        rms = read_json(self.out / "hosts.json")["sky_rms_njy"]
        recipe = self.recipe([rms[band] for band in self.bands])
        folder = self.out / STAMPS
        done = simulating.simulate(
            recipe,
            count=self.request.settings.stamps.count,
            seed=self.request.seed,
            out=folder,
            runner=self.runners.simulate,
            host_folder=self.out / HOSTS,
            resume=folder.exists(),
            progress=self.progress,
        )
        path = self.out / "border.json"
        if done["new_rows"] or not path.exists():
            data = StampSet.open(folder)
            rows = np.arange(min(data.n, PROBED))
            is_lens = data.column("label")[rows] == "lens"
            probe = border_probe(data.read_images("image", rows), is_lens, [str(h) for h in data.column("host")[rows]])
            write_json(path, probe)
            self.progress.say(
                f"Borders alone tell lenses from all else with AUC {probe['auc']:.3f} "
                f"[{probe['interval95'][0]:.3f}, {probe['interval95'][1]:.3f}] (chance 0.5)"
            )
        probe = read_json(path)
        if warning := warning_of(probe):
            self.progress.say(warning)
        return {"stamps": done["rows"], "border_probe": probe}

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that are there, and the one that is asked for."""
        found = sorted(self.out.glob("round-*/round.json"), key=lambda p: int(p.parent.name.split("-")[1]))
        records: list[dict[str, Any]] = [read_json(path) for path in found]
        asked: dict[str, Any] = {
            "families": list(self.request.networks),
            "members": self.request.n_member,
            "grades": digest_of_files(self.request.grades),
            "train": self.request.settings.model_dump(mode="json", include={"train", "go_on", "grades"}),
        }
        if records:
            had = records[-1]["asked"]["families"]
            if self.request.families and had != asked["families"]:
                raise ConfigError(
                    "the finder of this folder is of another network: give its --model or none, or another --out",
                    had=" ".join(had),
                    got=" ".join(asked["families"]),
                )
            asked["families"] = had
            if all(records[-1]["asked"][key] == asked[key] for key in ("grades", "members", "train")):
                return records
        begun = len(records) + 1
        self._begin(begun, asked)
        records.append(self.round(begun, asked, self._last_bases(records)))
        return records

    def _begin(self, number: int, asked: dict[str, Any]) -> None:
        """
        Note what an unfinished round is asked for; where that was other, or nobody noted it, begin the round anew.

        The painted stamps lie outside, so only trainings are lost.
        """
        folder = self.out / f"round-{number}"
        note, asked = folder / ASKED, json.loads(json.dumps(asked))
        if note.exists() and read_json(note) == asked:
            return
        if folder.exists():
            self.progress.say(f"Round {number} was not finished and is asked for otherwise now: it begins anew")
            note.unlink(missing_ok=True)  # first, so that a half removed round is not taken for one that was noted
            shutil.rmtree(folder)
        folder.mkdir()
        write_json(note, asked)

    def _last_bases(self, records: list[dict[str, Any]]) -> tuple[Base, ...]:
        if not records:
            return self.bases
        folders = [self.out / f"round-{len(records)}" / f"member-{k + 1}" for k in range(records[-1]["members"])]
        return tuple(Base(folder, read_card(folder)) for folder in folders)

    def round(self, number: int, asked: dict[str, Any], bases: tuple[Base, ...]) -> dict[str, Any]:
        """One round: stamps, training, calibration, what it reaches, and the finder that the folder now is."""
        folder = self.out / f"round-{number}"
        spec = StampSet.open(self.out / STAMPS).images["image"]
        graded = self._graded(spec)
        settings = self.request.settings
        joined = write_round_stamps(
            self.out / STAMPS,
            folder / "stamps",
            graded,
            spec=spec,
            share=settings.grades.share,
            most_repeats=settings.grades.most_repeats,
            seed=self.request.seed,
        )
        n_member = self.request.n_member
        name = self.name if number == 1 else f"{self.name}-round-{number}"
        members = train_members(
            folder / "stamps",
            folder,
            name=name,
            families=self.request.networks,
            n_member=n_member,
            bases=bases,
            bands=self.bands,
            settings=settings,
            seed=self.request.seed + 1000 * (number - 1),
            runner=self.runners.train,
            n_worker=self.runners.n_worker,
            progress=self.progress,
        )
        facts = {"survey": self.survey, "round": number, "graded": joined, "run_id": self.run.run_id}
        facts |= {"stand_ins": self.replaced} if self.replaced else {}
        for member in members:
            write_facts(member, facts)
        if n_member > 1:
            committee = together(members, folder / "stamps", name=name, progress=self.progress)
            write_committee(folder, committee)
            write_committee(self.out, committee)
            for stale in CHECKPOINT_FILES:
                (self.out / stale).unlink(missing_ok=True)
        else:
            files = files_of(read_card(members[0]))
            for file in files:
                with atomic_path(self.out / file) as path:
                    shutil.copyfile(members[0] / file, path)
            for stale in {COMMITTEE_FILE, TRAINING_SET_FILE} - set(files):
                (self.out / stale).unlink(missing_ok=True)
        reached = measured(score_stamps(self.out, folder / "stamps"))
        record = {
            "round": number,
            "asked": asked,
            "members": n_member,
            "families": [read_card(member).family for member in members],
            "begun_from": [base.card.name for base in bases],
            "graded": joined,
            "notes": list(graded.notes) if graded else [],
            "test": reached,
            "finished": utc_now(),
        }
        write_json(folder / "round.json", record)
        return record

    def known(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Known lenses in the run's tiles, cut for the page, and why those of a tile are not, by the tile."""
        painted = StampSet.open(self.out / STAMPS)
        return write_known(self.run, painted, self.request.lists, self.out / KNOWN, survey=self.survey)

    def _graded(self, spec: ImageSpec) -> Graded | None:
        if not self.request.grades:
            return None
        stored = read_json(self.out / "hosts.json")["areas"]
        areas = Areas(stored["order"], {int(k): v for k, v in stored["cells"].items()}, stored["margin_arcsec"])
        graded = read_graded(
            self.request.grades,
            self.run,
            spec,
            self.request.settings.grades,
            areas=areas,
            survey=self.survey,
            seed=self.request.seed,
        )
        for note in graded.notes:
            self.progress.say(note)
        return graded


def avoided(lists: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions of known lenses and contaminants."""
    tables = [read_known_lenses(name) for name in lists]
    ra, dec = (np.concatenate([np.empty(0), *(t[name].to_numpy() for t in tables)]) for name in ("ra", "dec"))
    return ra, dec
