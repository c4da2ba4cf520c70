from smolora_core.lora.merge import merge as merge
