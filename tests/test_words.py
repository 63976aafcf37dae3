"""The words of other libraries, and what is said for each of them."""

from __future__ import annotations

import re

import pytest
import torch

from lif_cuda import IF, LIF, AdaptiveLIF, CurrentLIF, ReferenceLIF, functional
from lif_cuda._options import CallOptions, LayerChoices
from lif_cuda._parameters import Parameters
from lif_cuda._words import _METHODS, _OURS

KNOWN = {"num_neurons", *Parameters._fields, *CallOptions._fields, *LayerChoices._fields}


@pytest.mark.parametrize("word", _OURS)
def test_a_word_of_another_library_is_answered_with_ours(word: str) -> None:
    for layer in (LIF, IF, CurrentLIF, AdaptiveLIF, ReferenceLIF):
        with pytest.raises(TypeError, match=re.escape(f"argument '{word}'; here it is {_OURS[word]}")):
            layer(**{word: 1})
    with pytest.raises(TypeError, match="here it is"):
        functional.lif(torch.zeros(2, 3), 0.9, **{word: 1})


@pytest.mark.parametrize("word", _OURS)
def test_the_answer_names_what_there_is(word: str) -> None:
    assert word not in KNOWN
    named = set(re.findall(r"\b([a-z_]+)=", _OURS[word]))
    assert named <= KNOWN
    assert named or "nothing" in _OURS[word] or "layer" in _OURS[word] or "torch." in _OURS[word]


@pytest.mark.parametrize("name", _METHODS)
def test_a_method_of_another_library_is_answered_too(name: str) -> None:
    for layer in (LIF(), AdaptiveLIF(), ReferenceLIF()):
        assert not hasattr(layer, name)
        with pytest.raises(AttributeError, match=re.escape(f"no attribute '{name}'; {_METHODS[name]}")):
            getattr(layer, name)


def test_any_other_word_is_answered_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'delay_reset'"):
        LIF(delayed_reset=1.0)  # type: ignore[call-arg]


def test_a_reset_to_none_is_one_by_subtraction() -> None:
    with pytest.raises(
        TypeError, match="v_reset must be a number or a tensor, got None; what that is in SpikingJelly"
    ):
        LIF(v_reset=None)  # type: ignore[arg-type]
