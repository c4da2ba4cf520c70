from smolora_core.run.check import Checked as Checked
from smolora_core.run.check import check_run as check_run
from smolora_core.run.job import Job as Job
from smolora_core.run.job import resolve_job as resolve_job
from smolora_core.run.prepare import FirstRows as FirstRows
from smolora_core.run.prepare import encode_first as encode_first
