from smolora_core.report.events import Event as Event
from smolora_core.report.terminal import Terminal as Terminal
from smolora_core.report.terminal import silence_libraries as silence_libraries
