from smolora_core.run.check import Checked as Checked
from smolora_core.run.check import check_run as check_run
