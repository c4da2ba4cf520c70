from smolora_core.dry_run.plan import Plan as Plan
from smolora_core.dry_run.plan import make_plan as make_plan
from smolora_core.dry_run.remedies import Remedy as Remedy
