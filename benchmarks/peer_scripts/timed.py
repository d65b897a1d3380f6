"""Images made some times over, for the scripts of peers that simulate: each lives in an environment of its own."""

import json
import time
from pathlib import Path

import numpy as np

ROUNDS = 15


def time_images(images, parameters, out):
    """Make the images of a file of parameters, keep the last ones, and print the fastest CPU seconds."""
    given, seconds = json.loads(Path(parameters).read_text()), []
    for _ in range(ROUNDS):
        begun = time.process_time()
        made = images(given)
        seconds.append(time.process_time() - begun)
    np.save(out, np.array(made))
    print(min(seconds))
