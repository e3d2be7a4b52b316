"""Callbacks, one per file."""

from lit_gpt_scratch.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lit_gpt_scratch.training.callbacks.curves import Curves
from lit_gpt_scratch.training.callbacks.early_stopping import ValLossEarlyStopping
from lit_gpt_scratch.training.callbacks.ema import EMA
from lit_gpt_scratch.training.callbacks.evaluation_schedule import EvaluationSchedule
from lit_gpt_scratch.training.callbacks.inspection import Inspection
from lit_gpt_scratch.training.callbacks.perplexity import Perplexity
from lit_gpt_scratch.training.callbacks.progress import Progress
from lit_gpt_scratch.training.callbacks.run_config import RunConfig
from lit_gpt_scratch.training.callbacks.samples import Samples
from lit_gpt_scratch.training.callbacks.step_control import StepControl
from lit_gpt_scratch.training.callbacks.stop_on_signal import StopOnSignal
from lit_gpt_scratch.training.callbacks.summary import Summary
from lit_gpt_scratch.training.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "BestCheckpoint",
    "Curves",
    "ValLossEarlyStopping",
    "EvaluationSchedule",
    "Inspection",
    "LastCheckpoint",
    "Perplexity",
    "Progress",
    "RunConfig",
    "Samples",
    "StepControl",
    "StopOnSignal",
    "Summary",
    "Throughput",
]
