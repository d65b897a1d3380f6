"""What runs a network: torch, or ONNX Runtime on the same weights."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.network import Network

Engine = Literal["torch", "onnx"]
Precision = Literal["float32", "bfloat16", "float16"]
"""What torch's convolutions and products are of."""
NEEDED = ("onnx", "onnxruntime")
N_CHECKED, TOLERANCE = 8, 1e-5


def demand_onnx() -> None:
    """Raise `ConfigError` where the packages that ONNX needs are not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"ONNX needs the package {' and '.join(missing)}: pip install 'lenspipe[onnx]'; or score with torch"
        )


def engine_record(engine: Engine, precision: Precision = "float32") -> dict[str, Any]:
    """
    What ``run.json`` says of a model's engine beside its digest.

    Nothing of torch, whose version stands there, but of its precision where it is not float32.
    """
    if engine == "torch":
        return {} if precision == "float32" else {"precision": precision}
    import onnxruntime

    return {"engine": {"name": engine, "version": str(onnxruntime.__version__)}}


def engine_said(model: dict[str, Any], versions: dict[str, str]) -> str:
    """
    Engine and version in words, of what ``run.json`` says of a model and of versions.

    Examples
    --------
    >>> engine_said({"engine": {"name": "onnx", "version": "1.32.0"}}, {"torch": "2.9.0"})
    'ONNX Runtime 1.32.0'
    >>> engine_said({}, {"torch": "2.9.0"})
    'torch 2.9.0'
    >>> engine_said({"precision": "bfloat16"}, {"torch": "2.9.0"})
    'torch 2.9.0 in bfloat16'
    """
    if engine := model.get("engine"):
        return f"ONNX Runtime {engine['version']}"
    in_what = f" in {model['precision']}" if "precision" in model else ""
    return f"torch {versions.get('torch', 'of an unknown version')}{in_what}"


class OnnxSession:
    """
    A network in ONNX Runtime on the CPU, with a fixed number of threads; made once it gives what torch gives.

    Attributes
    ----------
    raw : bytes
        The model (`lenspipe.nn.onnx_form`).
    difference : float
        Largest difference of an output from torch's on random stamps, over the larger of 1 and the largest output.

    Raises
    ------
    ConfigError
        A package is missing.
    ModelError
        The network has no ONNX form, or ONNX Runtime gives other numbers than torch, by more than 1e-5.
    """

    def __init__(self, module: Network, card: ModelCard, *, digest: str = "", threads: int = 1) -> None:
        demand_onnx()
        import onnxruntime

        from lenspipe.nn.onnx_form import onnx_bytes

        self.raw = onnx_bytes(module, card, digest=digest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.use_deterministic_compute = True
        try:
            self._session = onnxruntime.InferenceSession(self.raw, options, providers=["CPUExecutionProvider"])
            self.difference = self._from_torch(module, card)
        except _errors() as error:
            raise ModelError(
                f"ONNX Runtime cannot run the network ({str(error).strip()[:200]}); score with torch",
                family=card.family,
            ) from error
        if not self.difference <= TOLERANCE:
            raise ModelError(
                "ONNX Runtime gives other numbers than torch; score with torch",
                family=card.family,
                difference=self.difference,
                at_most=TOLERANCE,
            )

    def run(self, *inputs: NDArray[np.float32], give: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """Outputs of the names ``give`` (`lenspipe.nn.onnx_form`) for whole batches."""
        names = [item.name for item in self._session.get_inputs()]
        found: list[NDArray[np.float32]] = self._session.run(list(give), dict(zip(names, inputs, strict=True)))
        return found

    def shapes(self) -> list[tuple[str, str]]:
        """Name and shape of the inputs, then of the outputs."""
        items = (*self._session.get_inputs(), *self._session.get_outputs())
        return [(item.name, f"({', '.join(map(str, item.shape))})") for item in items]

    def _from_torch(self, module: Network, card: ModelCard) -> float:
        import torch

        rng = np.random.default_rng(0)
        shapes = [(N_CHECKED, card.n_channel, card.stamp_px, card.stamp_px), (N_CHECKED, len(card.features))]
        inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes[: 2 if card.features else 1]]
        with torch.inference_mode():
            want = module(*map(torch.from_numpy, inputs)).numpy()
        (got,) = self.run(*inputs, give=("outputs",))
        return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))


def _errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException, state.InvalidArgument
