from smolora_core.lora.merge import merge_and_save as merge_and_save
from smolora_core.lora.options import resolve_targets as resolve_targets
from smolora_core.lora.saving import save_adapter as save_adapter
from smolora_core.lora.targets import TargetChoice as TargetChoice
