from smolora_core.model.device import free_memory as free_memory
from smolora_core.model.device import pick_device as pick_device
from smolora_core.model.device import resident_memory as resident_memory
from smolora_core.model.load import head_modules as head_modules
from smolora_core.model.load import precision_of as precision_of
