"""Convert configs and weights between `GPT` and a model family of transformers."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lit_gpt_scratch.model.gpt import GPT, GPTConfig

# Config fields of all families, some through attribute_map, and the GPTConfig fields with the same values.
FIELDS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "tie_word_embeddings": "tie_weights",
}


@dataclass(frozen=True)
class Family:
    """A model family of Hugging Face's transformers, and its correspondence to `GPT`.

    Args:
        model_class: Class of the family's language models.
        fields: Config fields of the family besides `FIELDS`, mapped to the fields of `GPTConfig` with the
            same values; if several are mapped to one field of `GPTConfig`, an import reads the last of them.
        derived_options: Function that converts a config of the family to those fields of `GPTConfig` that no
            single config field corresponds to.
        settings: Function that converts a `GPTConfig` to the family's other config fields that affect the
            model's output, each with a tuple of the supported values; an export writes the first value.
        parts: Parts of parameter names in `GPT`, mapped to the corresponding parts of parameter names in the
            family; all other parts are the same in both.
        transposed: Name suffixes of the parameters that the family stores transposed.
    """

    model_class: type[PreTrainedModel]
    fields: dict[str, str]
    derived_options: Callable[[Any], dict[str, Any]]
    settings: Callable[[GPTConfig], dict[str, tuple[Any, ...]]]
    parts: dict[str, str]
    transposed: tuple[str, ...] = ()

    def gpt_options(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Return the fields of `GPTConfig` for a config of the family.

        Raises:
            ValueError: A setting is not supported, or a size is invalid.
        """
        options = {ours: getattr(config, theirs) for theirs, ours in (FIELDS | self.fields).items()}
        options |= self.derived_options(config)
        for name, supported in self.settings(GPTConfig(**options)).items():
            if (value := getattr(config, name)) not in supported:
                raise ValueError(f"this variant of {config.model_type} is not supported: {name} {value}")
        return options

    def hub_config(self, config: GPTConfig) -> PreTrainedConfig:
        """Convert a `GPTConfig` to the config of this model family in transformers."""
        values = {theirs: getattr(config, ours) for theirs, ours in (FIELDS | self.fields).items()}
        values |= {name: supported[0] for name, supported in self.settings(config).items()}
        config_class: Any = self.model_class.config_class
        return cast(PreTrainedConfig, config_class(**values))

    def gpt_state(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Return the weights of a model of the family as the state dict of a `GPT`."""
        return self._convert(model.state_dict(), {theirs: ours for ours, theirs in self.parts.items()})

    def hub_model(self, gpt: GPT) -> PreTrainedModel:
        """Return a model of the family with the weights of a `GPT`; biases that the GPT lacks are 0."""
        model = self.model_class(self.hub_config(gpt.config))
        biases = {
            name: torch.zeros_like(t) for name, t in model.state_dict().items() if name.endswith(".bias")
        }
        model.load_state_dict(biases | self._convert(gpt.state_dict(), self.parts))
        return model

    def _convert(self, state: dict[str, Tensor], parts: dict[str, str]) -> dict[str, Tensor]:
        """Rename the parameters of a state dict, and transpose those that the family stores transposed."""
        pattern = rf"\b({'|'.join(map(re.escape, parts))})\b"
        return {
            re.sub(pattern, lambda part: parts[part[0]], name): t.T if name.endswith(self.transposed) else t
            for name, t in state.items()
        }
