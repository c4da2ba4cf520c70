from smolora_core.lora.merge import merge_and_save as merge_and_save
from smolora_core.lora.saving import save_adapter as save_adapter
