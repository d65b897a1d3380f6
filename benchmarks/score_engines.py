"""
Engines of scoring on one core: stamps per second of torch (float32, bfloat16), ONNX Runtime (float32, int8), OpenVINO.

    python -m benchmarks.score_engines --real ../shared/data

The stamps are the candidates of a real survey tile (`ground-gri`) and simulated ones (`space-vis`), prepared once: the
network alone is timed, and preparation beside it. Rates are of CPU seconds of one thread, engines taking turns. An
engine keeps the order where the first percent by torch is its first percent too, in the same order. The two ways of
int8 are ONNX Runtime's own: static with scales from 256 of the stamps, and dynamic. A scan uses torch or, in float32,
ONNX Runtime; no scan uses OpenVINO, which is measured where it is installed. bfloat16 is fast on cores with matrix
instructions for it (`amx` in the record).
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.timing import rounds_s
from lenspipe.infer.engine import OnnxSession
from lenspipe.infer.prepare import prepare_stamps
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import find_model
from lenspipe.nn.checkpoint import load_model
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.models import choose_readers
from lenspipe.scan.plan import plan_tiles, tasks_of
from lenspipe.scan.read import read_shard
from lenspipe.scan.request import ScanRequest, find_tiles
from lenspipe.scan.search import search
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet
from lenspipe.survey.layout import read_layout

N_TIMED, N_CALIBRATE, ROUNDS, BATCH = 256, 256, 5, 32
MAX_TILE = 4000
Stamps = NDArray[np.float32]
Engine = Callable[[Stamps], NDArray[np.floating]]


def tile_cutouts(real: Path) -> tuple[Stamps, float]:
    """Cutouts of the candidates of a real survey tile, at most `MAX_TILE`, and their pixel scale."""
    layout, config = read_layout("kids"), ScanConfig.model_validate({"score": {"model": "ground-gri"}})
    request = ScanRequest((str(real / "tiles/kids_viking"),), layout, config, None)
    tiles, bands = find_tiles(request)
    readers = choose_readers(config, bands, layout).readers
    context = ScanContext(config, layout, bands, Path(), readers)
    parts: list[Stamps] = []
    scale = 0.0
    for task in tasks_of(plan_tiles(tiles, layout, config)):
        read = read_shard(task, context)
        scale = read.facts.pixel_scale_arcsec
        (key,) = readers[0].cutouts(scale)
        parts.append(search(read, context).cutouts[key])
        if sum(map(len, parts)) >= MAX_TILE:
            break
    return np.concatenate(parts)[:MAX_TILE], scale


def simulated(n: int, scratch: Path) -> tuple[Stamps, float]:
    """Simulated stamps of the recipe of `space-vis`, lenses and others."""
    simulate(read_recipe("space-vis"), count=n, seed=1, out=scratch / "stamps")
    stamps = StampSet.open(scratch / "stamps")
    return stamps.read_images(), stamps.images["image"].pixel_scale_arcsec


def batches(stamps: Stamps) -> Iterator[Stamps]:
    for start in range(0, len(stamps), BATCH):
        part = np.zeros((BATCH, *stamps.shape[1:]), np.float32)
        some = stamps[start : start + BATCH]
        part[: len(some)] = some
        yield part


def of_session(raw: str | bytes) -> Engine:
    """Logits by ONNX Runtime of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])

    def run(stamps: Stamps) -> NDArray[np.floating]:
        return np.concatenate([session.run(["outputs"], {"stamps": b})[0] for b in batches(stamps)])[: len(stamps)]

    return run


def of_openvino(path: str) -> Engine:
    """Logits by OpenVINO of an ONNX file."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    n_channel, side = model.input(0).partial_shape[1].get_length(), model.input(0).partial_shape[2].get_length()
    model.reshape([BATCH, n_channel, side, side])
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(stamps: Stamps) -> NDArray[np.floating]:
        return np.concatenate([np.array(request.infer({0: b})[0]) for b in batches(stamps)])[: len(stamps)]

    return run


def quantised(source: Path, scratch: Path, sample: Stamps) -> dict[str, Path]:
    """The model with int8 convolutions, by name of the way."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"stamps": b} for b in batches(sample)])

        def get_next(self) -> Any:
            return next(self.left, None)

    ready = scratch / "ready.onnx"
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    found = {name: scratch / f"{name}.onnx" for name in ("int8_static", "int8_dynamic")}
    quantize_static(
        str(ready), str(found["int8_static"]), Reader(), quant_format=QuantFormat.QOperator, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
    )  # fmt: skip
    quantize_dynamic(str(ready), str(found["int8_dynamic"]), op_types_to_quantize=["Conv"])
    return found


def measure(model: str, cutouts: Stamps, scale: float, scratch: Path) -> dict[str, Any]:
    folder = find_model(model)
    scorer, narrow = Scorer(folder, device="cpu"), Scorer(folder, device="cpu", precision="bfloat16")
    stamps = prepare_stamps(cutouts, cutout_scale_arcsec=scale, card=scorer.card)
    source = scratch / f"{model}.onnx"
    source.write_bytes(OnnxSession(*load_model(folder)).raw)
    engines: dict[str, Engine] = {
        "torch": lambda some: scorer.outputs(some)[:, 0],
        "torch bfloat16": lambda some: narrow.outputs(some)[:, 0],
        "onnxruntime": of_session(source.read_bytes()),
    }
    for name, path in quantised(source, scratch, stamps[:N_CALIBRATE]).items():
        engines[f"onnxruntime {name}"] = of_session(str(path))
    if importlib.util.find_spec("openvino"):
        engines["openvino"] = of_openvino(str(source))
    timed = stamps[:N_TIMED]
    calls: dict[str, Callable[[], Any]] = {name: functools.partial(run, timed) for name, run in engines.items()}
    calls["preparation"] = functools.partial(
        prepare_stamps, cutouts[:N_TIMED], cutout_scale_arcsec=scale, card=scorer.card
    )
    took = {name: min(each) for name, each in rounds_s(calls, ROUNDS).items()}
    logits = {name: run(stamps) for name, run in engines.items()}
    first = np.argsort(-logits["torch"], kind="stable")[: max(1, len(stamps) // 100)]
    return {
        "model": model,
        "stamps": len(stamps),
        "pixel_scale_arcsec": round(scale, 4),
        "per_s": {name: round(len(timed) / t) for name, t in took.items()},
        "over_torch": {name: round(took["torch"] / took[name], 2) for name in engines},
        "over_torch_with_preparation": {
            name: round((took["torch"] + took["preparation"]) / (took[name] + took["preparation"]), 2)
            for name in engines
        },
        "largest_difference_of_logit": {
            name: float(np.abs(of - logits["torch"]).max()) for name, of in logits.items() if name != "torch"
        },
        "first_percent_in_order": {
            name: bool(np.array_equal(np.argsort(-of, kind="stable")[: len(first)], first))
            for name, of in logits.items()
        },
        "of_the_first_percent_in_the_first_percent": {
            name: round(float(np.isin(np.argsort(-of, kind="stable")[: len(first)], first).mean()), 4)
            for name, of in logits.items()
        },
    }


@click.command()
@click.option("--real", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@record.keep_option
def main(real: Path, keep: bool) -> None:
    """Measure both shipped finders."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "onnxruntime", "openvino")
            if importlib.util.find_spec(name)
        },
        "amx": bool(torch.cpu._is_amx_tile_supported()),  # type: ignore[no-untyped-call]
        "batch": BATCH,
        "models": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for model, made in (
            ("ground-gri", lambda: tile_cutouts(real)),
            ("space-vis", lambda: simulated(1000, Path(scratch))),
        ):
            result["models"].append(measure(model, *made(), Path(scratch)))
            print(result["models"][-1], flush=True)
    aims = []
    for one in result["models"]:
        best = max((one["over_torch"][name], name) for name in one["over_torch"] if one["first_percent_in_order"][name])
        aims.append(record.at_least(f"{one['model']}: best that keeps the order ({best[1]}) over torch", best[0], 2.0))
        aims.append(record.at_least(f"{one['model']}: first percent by onnxruntime in order",
                                    one["first_percent_in_order"]["onnxruntime"], 1.0))  # fmt: skip
    record.write("score_engines", result, aims, keep=keep)


if __name__ == "__main__":
    main()
