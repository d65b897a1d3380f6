"""The card of a trained network as a checkpoint stores it (`lenspipe.nn.network.Network.plain`)."""

from __future__ import annotations

from lenspipe.nn.card import ModelCard
from lenspipe.nn.network import Network


def plain_card(card: ModelCard, module: Network) -> ModelCard:
    """
    The card of a module's plain form: family and settings of that form.

    What it was trained as is ``training["family"]``. The settings of its training stay whole under
    ``training["settings"]``, those of the family among them as ``model``; of a card without any, the family's are kept
    as ``training["family_settings"]``. The card of a network that is stored as it is, is returned as it is.
    """
    form = module.plain_form()
    if form is None:
        return card
    training = {**card.training, "family": card.family}
    if "settings" not in training:
        training["family_settings"] = card.settings
    family, settings = form
    return card.model_copy(update={"family": family, "settings": settings, "training": training})
