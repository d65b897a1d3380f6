"""
What a finder meets instead of lenses. One registry for simulated stamps and for painted hosts.

To add a non-lens, write a function under ``@non_lens(...)`` in a file of this folder: recipes may then name it as a
class, and `lenspipe.simulate.paint` paints it on real galaxies.
"""

from lenspipe.simulate.negatives import galaxies, images, lookalikes, pixels
from lenspipe.simulate.negatives.contract import NON_LENSES, Galaxy, NonLens, Place, Scaled, Sky, non_lens

__all__ = [
    "NON_LENSES",
    "Galaxy",
    "NonLens",
    "Place",
    "Scaled",
    "Sky",
    "galaxies",
    "images",
    "lookalikes",
    "non_lens",
    "pixels",
]
