"""`smolora report`."""

import json as json_module
from pathlib import Path

from smolora_core.cli import Json
from smolora_plugins.page.document import write_page


def report(run: Path, *, json: Json = False) -> None:
    """Write the page of a run again.

    Args:
        run: the run's folder.
        json: print JSON.
    """
    page = str(write_page(run))
    print(json_module.dumps({"report": page}, ensure_ascii=False) if json else page)
