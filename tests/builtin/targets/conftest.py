"""A tokenizer to save with every adapter."""

import pytest

from tests.support.models import save_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
