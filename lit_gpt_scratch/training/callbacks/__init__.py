"""Callbacks, one per file."""

from lit_gpt_scratch.training.callbacks.attention_maps import Inspection as Inspection
from lit_gpt_scratch.training.callbacks.curves import Curves as Curves
from lit_gpt_scratch.training.callbacks.early_stopping import ValLossEarlyStopping as ValLossEarlyStopping
from lit_gpt_scratch.training.callbacks.ema import EMA as EMA
from lit_gpt_scratch.training.callbacks.evaluation_schedule import EvaluationSchedule as EvaluationSchedule
from lit_gpt_scratch.training.callbacks.perplexity import Perplexity as Perplexity
from lit_gpt_scratch.training.callbacks.progress import Progress as Progress
from lit_gpt_scratch.training.callbacks.run_config import RunConfig as RunConfig
from lit_gpt_scratch.training.callbacks.samples import Samples as Samples
from lit_gpt_scratch.training.callbacks.save_checkpoints import BestCheckpoint as BestCheckpoint
from lit_gpt_scratch.training.callbacks.save_checkpoints import LastCheckpoint as LastCheckpoint
from lit_gpt_scratch.training.callbacks.step_control import StepControl as StepControl
from lit_gpt_scratch.training.callbacks.stop_on_signal import StopOnSignal as StopOnSignal
from lit_gpt_scratch.training.callbacks.summary import Summary as Summary
from lit_gpt_scratch.training.callbacks.throughput import Throughput as Throughput
