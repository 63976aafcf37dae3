"""What mutation_check.py would break, which takes too long for here, is there in the kernels as they are."""

from __future__ import annotations

import pytest
from _compile import ROOT
from mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_breaks_is_there(mutation: Mutation) -> None:
    text = (ROOT / mutation.path).read_text()
    assert mutation.right in text, f"{mutation.path} no longer says {mutation.right!r}"
    assert text.replace(mutation.right, mutation.wrong) != text
