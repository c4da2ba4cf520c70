from smolora_core.report.events import Event as Event
from smolora_core.report.events import read_events as read_events
from smolora_core.report.events import without_repeats as without_repeats
from smolora_core.report.terminal import Terminal as Terminal
from smolora_core.report.terminal import silence_libraries as silence_libraries
