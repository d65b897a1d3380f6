"""Judges of models, one file per task; `judge_for` is the only place that looks one up."""

from __future__ import annotations

from typing import Any

from lenspipe.evaluate.judges.anomaly import AnomalyJudge
from lenspipe.evaluate.judges.classify import ClassifyJudge
from lenspipe.evaluate.judges.cluster import ClusterJudge
from lenspipe.evaluate.judges.contract import Judge
from lenspipe.evaluate.judges.denoise import DenoiseJudge
from lenspipe.evaluate.judges.embed import EmbedJudge
from lenspipe.evaluate.judges.find import FindJudge
from lenspipe.evaluate.judges.generate import GenerateJudge
from lenspipe.evaluate.judges.regress import RegressJudge
from lenspipe.nn.outputs import Anomaly, Classify, Cluster, Denoise, Embed, Find, Generate, Outputs, Regress

_JUDGES: dict[type[Any], type[Judge[Any, Any]]] = {
    Find: FindJudge,
    Classify: ClassifyJudge,
    Regress: RegressJudge,
    Denoise: DenoiseJudge,
    Embed: EmbedJudge,
    Anomaly: AnomalyJudge,
    Cluster: ClusterJudge,
    Generate: GenerateJudge,
}


def judge_for(outputs: Outputs) -> type[Judge[Any, Any]]:
    """The class that judges models with such outputs."""
    return _JUDGES[type(outputs)]
