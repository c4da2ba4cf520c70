"""The page of a run: `report.html` in its folder."""

from smolora_core import Outcome, RunContext, hookimpl


@hookimpl
def smolora_run_finished(run: RunContext, outcome: Outcome) -> None:
    """Write the page, however the run ended."""
    if run.leads:
        from smolora_plugins.page.document import write_page

        write_page(run.folder)
