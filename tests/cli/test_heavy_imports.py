"""The collector rests while a command imports torch, and works again afterwards."""

import json
import subprocess
import sys

SCRIPT = """
import gc, json
from smolora_core.cli.flags import heavy_imports

rounds = []
gc.callbacks.append(lambda phase, info: rounds.append(info["generation"]))
with heavy_imports():
    import datasets
    inside = len(rounds)
print(json.dumps([inside, gc.isenabled(), gc.get_freeze_count() > 10_000]))
"""


def test_nothing_is_collected_while_modules_are_imported_and_what_they_made_is_frozen() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout) == [0, True, True]


def test_where_torch_is_imported_already_nothing_is_frozen() -> None:
    script = "import gc, torch\nfrom smolora_core.cli.flags import heavy_imports\nwith heavy_imports(): print(gc.isenabled())\n"
    script += "print(gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "0"]
