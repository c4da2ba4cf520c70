from smolora_core.training.memory import Strategies as Strategies
from smolora_core.training.memory import build_strategies as build_strategies
from smolora_core.training.memory import describe_strategy as describe_strategy
