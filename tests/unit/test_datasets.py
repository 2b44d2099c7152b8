"""The embedded default: real digits, and a trained model that does what its settings file says."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch

import depthflow
from depthflow.errors import ParameterError

DATA = resources.files("depthflow") / "data"


def test_digits_and_their_split():
    everything = depthflow.datasets.digits()
    assert everything.images.shape == (1797, 1, 8, 8)
    assert everything.images.dtype == np.float32
    assert (everything.images.min(), everything.images.max()) == (0.0, 1.0)
    train, test = depthflow.datasets.digits("train"), depthflow.datasets.digits("test")
    assert (len(train.images), len(test.images)) == (1437, 360)
    np.testing.assert_array_equal(everything.images[everything.split == "test"], test.images)
    np.testing.assert_array_equal(everything.labels[everything.split == "train"], train.labels)
    assert np.bincount(test.labels).min() >= 34


def test_an_unknown_split():
    with pytest.raises(ParameterError, match=r"among \('all', 'train', 'test'\); got 'val'"):
        depthflow.datasets.digits("val")


def test_trained_model_reaches_the_accuracy_that_it_states():
    data = depthflow.datasets.digits("test")
    with torch.no_grad():
        predicted = depthflow.datasets.digits_vit()(torch.from_numpy(data.images)).argmax(1).numpy()
    accuracy = float((predicted == data.labels).mean())
    assert accuracy == pytest.approx(json.loads((DATA / "digits_vit.json").read_text())["test_accuracy"], abs=1e-5)
    assert accuracy >= 0.975


def test_weights_are_small():
    assert len((DATA / "digits_vit.safetensors").read_bytes()) <= 3e6


def test_untrained_twin_is_the_same_architecture_with_other_weights():
    trained, twin = depthflow.datasets.digits_vit(), depthflow.datasets.digits_vit(trained=False)
    assert {n: p.shape for n, p in trained.named_parameters()} == {n: p.shape for n, p in twin.named_parameters()}
    again = depthflow.datasets.digits_vit(trained=False)
    other = depthflow.datasets.digits_vit(trained=False, seed=1)
    assert torch.equal(twin.head.weight, again.head.weight)
    assert not torch.equal(twin.head.weight, other.head.weight)
    assert not torch.equal(twin.head.weight, trained.head.weight)
    assert not trained.training


def test_loading_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    depthflow.datasets.digits_vit(trained=False)
    assert torch.equal(before, torch.get_rng_state())


def test_stochastic_depth_acts_in_training_only():
    model = depthflow.datasets.digits_vit()
    images = torch.from_numpy(depthflow.datasets.digits("test").images[:5])
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
