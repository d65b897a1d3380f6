"""A checkpoint's network as an ONNX model: what other programs run, and what ONNX Runtime scores with."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.card import ModelCard
from lenspipe.nn.fold import fold_batch_norm
from lenspipe.nn.network import GeneratorNetwork, ImageNetwork, Network, RebuildNetwork

STAMPS, NUMBERS = "stamps", "numbers"
"""Inputs: prepared stamps ``(n, channel, y, x)``; the scaled numbers beside them ``(n, k)`` where a card has any."""
OUTPUTS, FEATURES = "outputs", "features"
"""Outputs: what the network gives (of a finder the logit); what its head reads ``(n, num_features)``, if it has one."""
OPSET = 18
CARD, DIGEST = "lenspipe.card", "lenspipe.digest"
"""Keys of the model's metadata: the card as JSON, and the checkpoint's digest."""


class _Both(nn.Module):
    """A network's outputs, and the features that they are read from."""

    def __init__(self, module: Network) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As the network; outputs and features."""
        features = self.module.forward_features(*inputs)
        return self.module.forward_head(features), features


def onnx_bytes(module: Network, card: ModelCard, *, digest: str = "") -> bytes:
    """
    A network in evaluation mode as an ONNX model of float32 and any number of stamps, its card in the metadata.

    Batch norms that follow a convolution are folded into it, as for scoring. Preparing the stamps (resampling,
    stretch) is not in the model: the card says how (`lenspipe.infer.prepare`).

    Raises
    ------
    ModelError
        The network makes stamps of noise, or does something that ONNX has no words for.
    """
    import onnx

    if isinstance(module, GeneratorNetwork):
        raise ModelError("a generator is not written as ONNX: `lenspipe generate` makes its stamps", family=card.family)

    net = fold_batch_norm(module).to("cpu").to(memory_format=torch.contiguous_format)
    stamps = torch.zeros(2, card.n_channel, card.stamp_px, card.stamp_px)
    numbers = (torch.zeros(2, len(card.features)),) if card.features else ()
    inputs = (STAMPS, NUMBERS)[: 1 + len(numbers)]
    whole = isinstance(module, ImageNetwork | RebuildNetwork)  # what these give cannot be told from features
    outputs = (OUTPUTS,) if whole else (OUTPUTS, FEATURES)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel of torch's own
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            warnings.catch_warnings(),
            torch.inference_mode(),
            contextlib.redirect_stdout(io.StringIO()),  # the whole graph, where there is no form
        ):
            path = Path(scratch) / "model.onnx"
            warnings.simplefilter("ignore")  # torch's own on the tracer, whose constants are of this card
            torch.onnx.export(
                net if whole else _Both(net),
                (stamps, *numbers),
                path,
                dynamo=False,  # the other exporter cannot leave the number of stamps open
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
            )
            model = onnx.load(path)
    except torch.onnx.errors.OnnxExporterError as error:
        why = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"this family has no ONNX form: {why}", family=card.family) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    model.producer_name, model.producer_version = "lenspipe", ""
    model.doc_string = f"{card.name}: {card.family}, bands {' '.join(card.bands)}"
    onnx.helper.set_model_props(model, {CARD: card.model_dump_json(), DIGEST: digest})
    onnx.checker.check_model(model)
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw
