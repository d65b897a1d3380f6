"""One file a network family or group of families; importing this package registers them all."""

from lenspipe.nn.families import (
    autoencoder,
    cmu_deeplens,
    densenet_cbam,
    equivariant_families,
    hybrid,
    kernel,
    lastro,
    lastro_invariant,
    paper_cnns,
    plain_equivariant,
    small_cnn,
    unet,
    wsi_net,
)

__all__ = [
    "autoencoder",
    "cmu_deeplens",
    "densenet_cbam",
    "equivariant_families",
    "hybrid",
    "kernel",
    "lastro",
    "lastro_invariant",
    "paper_cnns",
    "plain_equivariant",
    "small_cnn",
    "unet",
    "wsi_net",
]
