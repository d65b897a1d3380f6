"""One file a network family; importing this package registers them all."""

from lenspipe.nn.models import small_cnn, unet

__all__ = ["small_cnn", "unet"]
