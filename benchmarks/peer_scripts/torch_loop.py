"""Score stamps by a plain loop over batches of the network as it is loaded: MODEL STAMPS OUT."""

import sys

import numpy as np
import torch

from lenspipe.infer.prepare import prepare_stamps
from lenspipe.nn.checkpoint import load_model

if __name__ == "__main__":
    model, stamps, out = sys.argv[1:]
    torch.set_num_threads(1)
    module, card = load_model(model)
    module.eval()
    cutouts, scores = np.load(stamps), []
    with torch.no_grad():
        for start in range(0, len(cutouts), 64):
            batch = prepare_stamps(cutouts[start : start + 64], cutout_scale_arcsec=0.2, card=card)
            scores.append(torch.sigmoid(module(torch.from_numpy(batch)).double().reshape(-1)).numpy())
    np.save(out, np.concatenate(scores))
