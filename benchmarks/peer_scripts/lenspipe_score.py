"""Score stamps as a scan does: MODEL STAMPS OUT."""

import sys

import numpy as np

from lenspipe.infer.score import Scorer

if __name__ == "__main__":
    model, stamps, out = sys.argv[1:]
    np.save(out, Scorer(model, device="cpu").score(np.load(stamps), pixel_scale_arcsec=0.2))
