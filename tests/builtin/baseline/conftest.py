"""The models of the tasks."""

from tests.builtin.tasks.conftest import model_of as model_of
