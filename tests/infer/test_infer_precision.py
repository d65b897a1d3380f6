"""Narrow numbers move a logit by no more than the settings say, and are refused where they mean nothing."""

import numpy as np
import pytest

from lenspipe.errors import ConfigError
from lenspipe.infer.score import Scorer
from lenspipe.nn.card import find_model
from lenspipe.scan.config import ScoreConfig
from lenspipe.scan.readers.find import demand_engine

N = 8


def test_logits_of_narrow_numbers_lie_as_near_as_the_settings_say(rng):
    folder = find_model("ground-gri")
    scorer = Scorer(folder, device="cpu", batch_size=N)
    shape = (N, len(scorer.card.bands), scorer.card.stamp_px, scorer.card.stamp_px)
    stamps = rng.normal(0, 1, shape).astype(np.float32)
    want = scorer.outputs(stamps)
    assert np.array_equal(Scorer(folder, device="cpu", batch_size=N, precision="float32").outputs(stamps), want)
    for precision, most in (("bfloat16", 0.05), ("float16", 0.005)):
        narrow = Scorer(folder, device="cpu", batch_size=N, precision=precision)
        away = np.abs(narrow.outputs(stamps) - want).max()
        assert 0 < away < most, precision
        scores, features = narrow.score_with_features(stamps)
        assert np.array_equal(scores, narrow.score_prepared(stamps)) and features.dtype == np.float32


def test_the_precision_stands_in_a_request_only_where_it_is_another_and_is_torchs_alone():
    assert "precision" not in ScoreConfig().model_dump(mode="json")
    assert ScoreConfig(precision="float16").model_dump(mode="json")["precision"] == "float16"
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match="precision is torch's"):
        demand_engine(ScoreConfig(engine="onnx", precision="float16"))
