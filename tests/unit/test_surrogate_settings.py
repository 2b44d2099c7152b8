"""SurrogateSettings: every fault by its text, all of them at once, and what JSON keeps."""

from __future__ import annotations

import copy
import json
import math
import re

import numpy as np
import pytest

from depthflow import SurrogateSettings
from depthflow.errors import ParameterError
from depthflow.surrogate.settings import EVEN, SPARING_REGISTERS


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"init": "random"}, "needs init as one of ('teacher', 'fresh'); got 'random'."),
        ({"mlp": "relu"}, "needs mlp as one of ('gelu', 'swiglu'); got 'relu'."),
        ({"optimizer": "sgd"}, "needs optimizer as one of ('muon', 'adamw'); got 'sgd'."),
        ({"precision": "float16"}, "needs precision as one of ('float32', 'bfloat16'); got 'float16'."),
        ({"depth_scale": 1}, "needs depth_scale as True or False; got 1."),
        ({"scale_by_variance": "yes"}, "needs scale_by_variance as True or False; got 'yes'."),
        ({"compile": None}, "needs compile as True or False; got None."),
        ({"batch_size": 0}, "needs batch_size as a whole number from 1; got 0."),
        ({"validate_every": 2.0}, "needs validate_every as a whole number from 1; got 2.0."),
        ({"checkpoint_every": True}, "needs checkpoint_every as a whole number from 1; got True."),
        ({"workers": -1}, "needs workers as a whole number from 0; got -1."),
        ({"heads": 0}, "needs heads as a whole number from 1; got 0."),
        ({"patience": 0}, "needs patience as a whole number from 1; got 0."),
        ({"mlp_ratio": 0}, "needs mlp_ratio as a number above 0; got 0."),
        ({"learning_rate": math.inf}, "needs learning_rate as a number above 0; got inf."),
        ({"matrix_rate": -1.0}, "needs matrix_rate as a number above 0; got -1.0."),
        ({"max_norm": "1"}, "needs max_norm as a number above 0; got '1'."),
        ({"max_norm": math.nan}, "needs max_norm as a number above 0; got nan."),
        ({"weight_decay": -1e-4}, "needs weight_decay as a number of at least 0; got -0.0001."),
        ({"warmup": 1.5}, "needs warmup as a number of at least 0 and at most 1; got 1.5."),
        ({"final_rate": -0.1}, "needs final_rate as a number of at least 0 and at most 1; got -0.1."),
        ({"forcing": -1}, "needs forcing as a number of at least 0; got -1."),
        ({"forcing": math.nan}, "needs forcing as a number of at least 0; got nan."),
        ({"layer_scale": 0.0}, "needs layer_scale as a number above 0; got 0.0."),
        ({"steps": 100}, "needs steps as a pair, those of stage 1 and of stage 2; got 100."),
        ({"steps": (1, 2, 3)}, "needs steps as a pair, those of stage 1 and of stage 2; got (1, 2, 3)."),
        ({"steps": (1, -2)}, "needs each of steps as a whole number from 0; got -2."),
        ({"steps": (0, 0)}, "needs at least one step in one of the stages; got steps=(0, 0)."),
        ({"token_weights": {"cls": 1.0}}, "needs token_weights as a pair of mappings, one a stage; got {'cls': 1.0}."),
        ({"token_weights": ({"cls": 1.0}, {"CLS": 1.0})}, "in token_weights; got 'CLS'."),
        (
            {"token_weights": ({"cls": -1.0}, {})},
            "needs token_weights of 'cls' as a number of at least 0; got -1.0.",
        ),
    ],
)
def test_every_fault_says_what_is_wanted_and_what_came(given, fault):
    with pytest.raises(ParameterError, match=re.escape(fault)):
        SurrogateSettings(**given)


def test_all_faults_are_named_at_once():
    with pytest.raises(ParameterError, match=r"(?s)3 faults.*needs mlp as.*needs batch_size.*needs steps as a pair"):
        SurrogateSettings(mlp="relu", batch_size=0, steps=[1, 2])


def test_limits_of_the_ranges_are_inside():
    SurrogateSettings(warmup=0, final_rate=1, forcing=math.inf, weight_decay=0, steps=(0, 1), layer_scale=None)
    SurrogateSettings(warmup=1.0, final_rate=0.0, forcing=0, heads=1, patience=1, steps=(1, 0))


def test_json_gives_the_same_settings_again():
    settings = SurrogateSettings(
        init="fresh", steps=(3, 4), forcing=math.inf, token_weights=({"cls": 1.0}, {"patch": 2.0}), patience=2, heads=3
    )
    text = json.dumps(settings.to_json(), allow_nan=False)
    assert SurrogateSettings.from_json(json.loads(text)) == settings
    assert SurrogateSettings.from_json(json.loads(json.dumps(SurrogateSettings().to_json()))) == SurrogateSettings()


def test_numbers_of_numpy_are_kept_as_python_s_own():
    settings = SurrogateSettings(
        steps=(np.int64(3), np.int32(4)),
        learning_rate=np.float32(0.5),
        heads=np.int64(2),
        token_weights=({"cls": np.float32(0.5)}, EVEN),
    )
    kept = json.loads(json.dumps(settings.to_json()))
    assert (kept["steps"], kept["learning_rate"], kept["heads"]) == ([3, 4], 0.5, 2)
    assert kept["token_weights"] == [{"cls": 0.5}, dict(EVEN)]


def test_settings_can_be_copied():
    assert copy.deepcopy(SurrogateSettings()) == SurrogateSettings()


def test_the_default_weights_are_those_of_the_paper_s_runs():
    """cls, register and patch in stage 1, and in stage 2."""
    kinds = ("cls", "reg", "patch")
    assert [EVEN[kind] for kind in kinds] == [0.34, 0.33, 0.33]
    assert [SPARING_REGISTERS[kind] for kind in kinds] == [0.45, 0.10, 0.45]
    assert SurrogateSettings().token_weights == (EVEN, SPARING_REGISTERS)
    assert EVEN["pad"] == SPARING_REGISTERS["pad"] == 0
