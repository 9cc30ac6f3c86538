"""Project files: YAML -> includes merged -> typed, frozen dataclasses. Needs neither torch nor
transformers."""

from mmpt.config.load import find_project, load_config, merge, recursive_config
from mmpt.config.schema import Config, DatasetConfig, EvalConfig, ModelConfig
from mmpt.config.shared import required
from mmpt.config.yamlfile import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "DatasetConfig",
    "EvalConfig",
    "ModelConfig",
    "find_project",
    "load_config",
    "merge",
    "recursive_config",
    "required",
]
