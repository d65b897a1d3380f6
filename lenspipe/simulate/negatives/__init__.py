"""
What a finder meets instead of lenses. One registry for simulated stamps and for painted hosts.

To add a non-lens, write a function under ``@non_lens(...)`` in a file of this folder: recipes may then name it as a
class, and `lenspipe.simulate.paint` paints it on real galaxies.
"""

import importlib
import pkgutil

from lenspipe.simulate.negatives.contract import NON_LENSES, Galaxy, NonLens, Place, Scaled, Sky, non_lens

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["NON_LENSES", "Galaxy", "NonLens", "Place", "Scaled", "Sky", "non_lens"]
