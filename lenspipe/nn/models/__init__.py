"""One file a network family; importing this package registers them all."""

from lenspipe.nn.models import small_cnn

__all__ = ["small_cnn"]
