"""Checkpoints: ``card.json`` and ``weights.safetensors`` in a folder, checked against each other. No pickle."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from lenspipe.errors import ModelError
from lenspipe.nn.allowance import Allowance
from lenspipe.nn.card import CARD_FILE, PICKLES, WEIGHTS_FILE, ModelCard, read_card, write_card
from lenspipe.nn.network import Network
from lenspipe.nn.registry import build
from lenspipe.rundir import atomic_path
from lenspipe.store.copies import local_folder


def save_model(folder: str | Path, module: nn.Module, card: ModelCard) -> ModelCard:
    """
    Write a module and its card; the card's checksum and, where it is empty, its date are filled in.

    Weights are replaced atomically and before the card, so a folder with a valid card is whole.

    Returns
    -------
    ModelCard
        The card as written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    with atomic_path(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(weights)
    created = card.created or datetime.datetime.now(datetime.UTC).date().isoformat()
    written = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest(), "created": created})
    write_card(folder, written)
    return written


def load_model(folder: str | Path) -> tuple[Network, ModelCard]:
    """
    Read a checkpoint folder: the module in evaluation mode on the CPU, and its card.

    Raises
    ------
    ModelError
        A pickle is offered; card or weights are missing; the weights are not the ones the card was written for
        (SHA-256), are truncated, or do not have the tensors of the card's family; or the card asks for a network far
        larger than they are (`lenspipe.nn.allowance`).
    """
    folder = local_folder(folder)
    if folder.suffix.lower() in PICKLES:
        raise ModelError(
            f"a pickle is never loaded: a model is a folder with {CARD_FILE} and {WEIGHTS_FILE}", got=str(folder)
        )
    card = read_card(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix.lower() in PICKLES]
        why = f"the pickle {pickles[0]} is never loaded" if pickles else "the folder is incomplete"
        raise ModelError(f"the model has no {WEIGHTS_FILE}: {why}", folder=str(folder))
    raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != card.weights_sha256:
        raise ModelError(
            "the weights are not the ones of the card: the file is truncated, or one of the two was replaced",
            file=str(path),
            got_sha256=found[:16],
            want_sha256=card.weights_sha256[:16],
        )
    try:
        tensors = load(raw)
    except SafetensorError as error:
        raise ModelError(f"the weights are not a safetensors file: {error}", file=str(path)) from error
    try:
        with Allowance(len(raw), str(path)):
            module = build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:  # a card may say anything
        raise ModelError(
            f"no network can be built of the card's settings: {str(error).splitlines()[0][:200]}", file=str(path)
        ) from error
    want = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if want != got:
        differing = sorted(name for name in want.keys() | got.keys() if want.get(name) != got.get(name))
        raise ModelError(
            f"the weights do not have the tensors of family {card.family!r}",
            file=str(path),
            n_differing=len(differing),
            first=differing[0],
            got=str(got.get(differing[0])),
            want=str(want.get(differing[0])),
        )
    module.load_state_dict(tensors)
    return module.eval(), card
