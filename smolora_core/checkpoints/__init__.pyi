from smolora_core.checkpoints.disk import replace_file as replace_file
from smolora_core.checkpoints.retention import Committed as Committed
from smolora_core.checkpoints.retention import Keep as Keep
from smolora_core.checkpoints.staging import Checkpoint as Checkpoint
