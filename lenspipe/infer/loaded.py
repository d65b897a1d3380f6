"""A checkpoint on a device that runs batches of one size: what scores, predicts and denoises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lenspipe.errors import ModelError
from lenspipe.infer.engine import Engine, OnnxSession, Precision
from lenspipe.nn.card import digest
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.fold import fold_batch_norm
from lenspipe.nn.layout import kernels_channels_last
from lenspipe.nn.network import Network
from lenspipe.nn.onnx_form import FEATURES, OUTPUTS

BATCH_SIZE_CPU, BATCH_SIZE_GPU = 32, 256


class LoadedNetwork:
    """
    A checkpoint ready to run.

    Every batch has the same size (the last is padded), the network runs in evaluation mode on one device, and its
    head sums row by row: on one machine what it gives for a stamp is the same to the last bit whatever the stamp's
    position, its neighbours and their number.

    Parameters
    ----------
    folder : path
        Checkpoint folder (`lenspipe.nn.checkpoint`).
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    batch_size : int, optional
        Stamps per batch; part of what fixes the last bit.
    threads : int
        Threads of torch on the CPU. Set for the whole process.
    engine : str
        ``torch``, or ``onnx``: ONNX Runtime, on the CPU. What they give agrees to about 1e-6, not to the last bit.
    precision : str
        Numbers that torch's convolutions and products are of; ``bfloat16`` and ``float16`` are for GPUs, the
        first also for CPUs with instructions for it.

    Attributes
    ----------
    card : ModelCard
    digest : str
        Name of the checkpoint's exact content.
    n_parameter : int
        Weights that were fitted.

    Raises
    ------
    ModelError
        The checkpoint is broken or unsafe (`load_model`), the device is not there, or the network has no ONNX form.
    ConfigError
        The engine is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        batch_size: int | None = None,
        threads: int = 1,
        engine: Engine = "torch",
        precision: Precision = "float32",
    ) -> None:
        module, self.card = load_model(folder)
        self.digest = digest(folder)
        self.n_parameter = sum(parameter.numel() for parameter in module.parameters())
        device = "cpu" if engine == "onnx" else device
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError("no CUDA device on this machine: use device 'auto' or 'cpu'", got=device)
        self.device = torch.device(name)
        self.batch_size = batch_size or (BATCH_SIZE_CPU if self.device.type == "cpu" else BATCH_SIZE_GPU)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = False
        # channels last: 15 % more stamps per second on a CPU (benchmarks/finder_speed.py)
        self._module: Network = fold_batch_norm(module).to(self.device)
        kernels_channels_last(self._module)
        self._precision = precision
        self._session = OnnxSession(module, self.card, threads=threads) if engine == "onnx" else None

    def batches(self, n: int) -> list[slice]:
        """Rows of each batch of ``n`` stamps."""
        return [slice(start, min(start + self.batch_size, n)) for start in range(0, n, self.batch_size)]

    def features(self, stamps: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the trunk makes of prepared stamps ``(n, channel, y, x)``: ``(n, num_features)``, before the head."""
        parts = []
        with self._running():
            for rows in self.batches(len(stamps)):
                n = rows.stop - rows.start
                if self._session is not None:
                    parts.append(self._session.run(_padded(stamps[rows], self.batch_size), give=(FEATURES,))[0][:n])
                    continue
                found = self._module.forward_features(self._on_device(stamps[rows], self.batch_size))
                parts.append(found.float().cpu().numpy()[:n])
        return np.concatenate(parts) if parts else np.empty((0, self._module.num_features), np.float32)

    def with_features(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """
        What the network gives for a batch at most, and the features that it reads, ``(n, num_features)``.

        The same bits as of `run` and of `features`.
        """
        if self._session is not None:
            both = self._session.run(_padded(stamps, self.batch_size), give=(OUTPUTS, FEATURES))
            return both[0][: len(stamps)], both[1][: len(stamps)]
        with self._running():
            features = self._module.forward_features(self._on_device(stamps, self.batch_size))
            out: NDArray[np.float32] = self._module.forward_head(features).float().cpu().numpy()
        return out[: len(stamps)], features.float().cpu().numpy()[: len(stamps)]

    def run(self, *inputs: NDArray[np.float32], padded_to: int | None = None) -> NDArray[np.float32]:
        """
        What the network gives for a batch at most: stamps ``(n, channel, y, x)``, and numbers beside them ``(n, k)``.

        The rows are padded to ``padded_to``, by default a batch, and cut again.
        """
        n, size = len(inputs[0]), padded_to or self.batch_size
        if self._session is not None:
            return self._session.run(*(_padded(rows, size) for rows in inputs), give=(OUTPUTS,))[0][:n]
        with self._running():
            on_device = [self._on_device(rows, size) for rows in inputs]
            out: NDArray[np.float32] = self._module(*on_device).float().cpu().numpy()
        return out[:n]

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and products of the precision that was asked for."""
        with torch.inference_mode():
            if self._precision == "float32":
                yield
                return
            with torch.autocast(self.device.type, getattr(torch, self._precision)):
                yield

    def _on_device(self, rows: NDArray[np.float32], size: int) -> torch.Tensor:
        as_is = torch.from_numpy(_padded(rows, size))
        if self.device.type == "cuda":  # pages that the GPU reads by itself, while this thread goes on
            as_is = as_is.pin_memory()
        if rows.ndim == 4:
            return as_is.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        return as_is.to(self.device, non_blocking=True)


def _padded(rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    batch = np.zeros((size, *rows.shape[1:]), np.float32)
    batch[: len(rows)] = rows
    return batch
