from smolora_core.cli.app import main as main
from smolora_core.cli.app import make_app as make_app
from smolora_core.cli.flags import Json as Json
from smolora_core.cli.flags import PluginFlags as PluginFlags
from smolora_core.cli.flags import RunArguments as RunArguments
from smolora_core.cli.flags import heavy_imports as heavy_imports
from smolora_core.cli.flags import load_run as load_run
from smolora_core.cli.flags import train_command as train_command
