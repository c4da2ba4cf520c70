from smolora_core.lora.merge import merge_and_save as merge_and_save
