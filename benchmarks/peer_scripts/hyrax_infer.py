"""Score prepared stamps by hyrax's infer: NETWORK (TorchScript) STAMPS OUT, in an environment that has it."""

import sys
from pathlib import Path

import numpy as np
import torch
from hyrax import Hyrax
from hyrax.datasets import HyraxDataset
from hyrax.models import hyrax_model

NETWORK, STAMPS, OUT = sys.argv[1:]


class PreparedStamps(HyraxDataset, torch.utils.data.Dataset):
    """An array on disk."""

    def __init__(self, config, data_location=None):
        self.images = np.load(data_location)
        super().__init__(config)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, idx):
        return {"data": {"image": self.images[idx], "object_id": str(idx)}, "object_id": str(idx)}

    def get_image(self, idx):
        return self.images[idx]

    def get_object_id(self, idx):
        return str(idx)


@hyrax_model
class Traced(torch.nn.Module):
    """The same network, which comes with its weights."""

    def __init__(self, config, data_sample=None):
        super().__init__()
        self.config = config
        self.network = torch.jit.load(NETWORK)
        self.network.eval()

    def forward(self, x):
        return torch.sigmoid(self.network(x).double().reshape(-1, 1))

    def infer_batch(self, batch):
        return self.forward(batch)

    def train_batch(self, batch):
        raise NotImplementedError

    @staticmethod
    def prepare_inputs(data_dict):
        return data_dict["data"]["image"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(OUT)
    h = Hyrax()
    torch.save(Traced(h.config).state_dict(), here.with_suffix(".weights"))
    h.config["general"]["results_dir"] = str(here.with_suffix(".results"))
    h.config["model"]["name"] = "Traced"
    h.config["infer"]["model_weights_file"] = str(here.with_suffix(".weights"))
    h.config["data_loader"]["batch_size"] = 64
    h.set_config(
        "data_request",
        {
            "infer": {
                "data": {
                    "dataset_class": "PreparedStamps",
                    "data_location": STAMPS,
                    "fields": ["image"],
                    "primary_id_field": "object_id",
                }
            }
        },
    )
    found = h.infer()
    order = np.argsort([int(name) for name in found.ids()])
    np.save(OUT, np.array([found[int(k)]["data"][0] for k in order]))
