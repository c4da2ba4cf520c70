from smolora_core.inference.generate import LoadedAdapter as LoadedAdapter
from smolora_core.inference.generate import load_adapter as load_adapter
from smolora_core.inference.options import check_device as check_device
from smolora_core.inference.options import check_options as check_options
from smolora_core.inference.options import check_prompt as check_prompt
