"""A surrogate is kept whole without pickles, and read back bit for bit or refused with the reason."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import depthflow
from depthflow import RecurrentSurrogate, SurrogateSettings
from depthflow.errors import ParameterError, SurrogateError
from tests.stacks import Chain, vit
from tests.threads import one_thread  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = SurrogateSettings(steps=(2, 2), batch_size=4)
FILES = {"README.md", "config.json", "model.safetensors"}


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(9, 1, 6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)


def fit(model: nn.Module, inputs: Any = None, settings: SurrogateSettings = SETTINGS, **kwargs: Any) -> Any:
    inputs = images() if inputs is None else inputs
    return depthflow.fit_surrogate(model, inputs, settings=settings, progress=False, **kwargs)


@pytest.fixture(scope="module")
def surrogate() -> RecurrentSurrogate:
    return fit(vit())


@pytest.fixture
def folder(surrogate, tmp_path) -> Path:
    surrogate.save_pretrained(tmp_path / "kept")
    return tmp_path / "kept"


def states(model: nn.Module, inputs: Tensor) -> Any:
    return depthflow.record(model, inputs, progress=False)


def require_equal(one: RecurrentSurrogate, other: RecurrentSurrogate, inputs: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(one(inputs), other(inputs))
    assert states(one, inputs).equals(states(other, inputs))


def change_config(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def test_what_is_read_back_is_what_was_kept(surrogate, folder):
    got = RecurrentSurrogate.from_pretrained(folder)
    require_equal(got, surrogate, images())
    assert got.plan == surrogate.plan
    assert got.settings == surrogate.settings
    assert got.history == surrogate.history
    assert got.teacher == json.loads(json.dumps(surrogate.teacher))
    assert got.phases.tolist() == surrogate.phases.tolist()
    assert not any(module.training for module in got.modules())
    assert [p.requires_grad for p in got.parameters()] == [p.requires_grad for p in surrogate.parameters()]


def test_a_fresh_process_reads_the_same_bits(surrogate, folder, tmp_path):
    script = (
        "import sys, torch, depthflow\n"
        "from safetensors.torch import load_file, save_file\n"
        "torch.set_num_threads(1)\n"
        "inputs = load_file(sys.argv[2])['images']\n"
        "surrogate = depthflow.RecurrentSurrogate.from_pretrained(sys.argv[1])\n"
        "with torch.no_grad():\n"
        "    save_file({'logits': surrogate(inputs)}, sys.argv[3])\n"
    )
    save_file({"images": images()}, tmp_path / "in")
    command = [sys.executable, "-c", script, *map(str, (folder, tmp_path / "in", tmp_path / "out"))]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "out")["logits"], surrogate(images()))


def test_nothing_is_pickled(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    json.loads((folder / "config.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    tensors = load_file(folder / "model.safetensors")
    assert not any("step" in name and "depth" in name for name in tensors)


def test_every_weight_is_kept_once(surrogate, folder):
    tensors = load_file(folder / "model.safetensors")
    wanted = {id(tensor): tensor for tensor in [*surrogate.parameters(), *surrogate.buffers()]}
    steps = {id(step.depth) for step in surrogate.steps}
    assert len(tensors) == len(wanted.keys() - steps)


@pytest.mark.parametrize(
    "settings",
    [
        {"init": "fresh"},
        {"init": "fresh", "mlp": "swiglu", "layer_scale": None, "heads": 2, "depth_scale": False},
        {"depth_scale": False},
        {"optimizer": "adamw", "forcing": float("inf")},
    ],
    ids=str,
)
def test_every_kind_of_surrogate_comes_back(settings, tmp_path):
    made = fit(vit(), settings=SurrogateSettings(steps=(2, 2), batch_size=4, **settings))
    made.save_pretrained(tmp_path)
    got = RecurrentSurrogate.from_pretrained(tmp_path)
    require_equal(got, made, images())
    assert got.settings == made.settings


def test_scattered_phases_come_back(tmp_path):
    made = fit(vit(), phases=[1, 2, 1, 2], contiguous=False)
    made.save_pretrained(tmp_path)
    require_equal(RecurrentSurrogate.from_pretrained(tmp_path), made, images())


@pytest.mark.parametrize("given", [None, torch.float32, torch.float64])
def test_double_precision_comes_back(given, tmp_path):
    made = fit(vit().double(), images(torch.float64))
    made.save_pretrained(tmp_path)
    got = RecurrentSurrogate.from_pretrained(tmp_path, teacher=None if given is None else vit().to(given))
    assert {p.dtype for p in got.parameters()} == {torch.float64}
    require_equal(got, made, images(torch.float64))


def test_single_precision_comes_back_into_a_teacher_of_double(surrogate, folder):
    got = RecurrentSurrogate.from_pretrained(folder, teacher=vit().double())
    assert {p.dtype for p in got.parameters()} == {torch.float32}
    require_equal(got, surrogate, images())


class Own(nn.Module):
    """A user's model, which nobody can build from JSON."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, width)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 8, batch_first=True) for _ in range(4))
        self.register_buffer("shift", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.shift
        for block in self.blocks:
            x = block(x)
        return x.mean(1)


def test_a_teacher_that_cannot_be_built_is_asked_for(tmp_path):
    inputs = torch.randn(9, 7, 4, generator=torch.Generator().manual_seed(1))
    made = fit(Own(), inputs)
    made.save_pretrained(tmp_path)
    with pytest.raises(SurrogateError, match=r"surrogate of 'Own', but that model cannot be built.*Pass teacher="):
        RecurrentSurrogate.from_pretrained(tmp_path)
    other = Own()
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            tensor.add_(1.0)
    before = copy.deepcopy(other.state_dict())
    require_equal(RecurrentSurrogate.from_pretrained(tmp_path, teacher=other), made, inputs)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    with pytest.raises(SurrogateError, match=r"weights are of another architecture: \d+ tensors do not fit, first 'b"):
        RecurrentSurrogate.from_pretrained(tmp_path, teacher=Own(width=16))


def test_a_teacher_without_the_blocks_is_refused(folder):
    with pytest.raises(SurrogateError, match=r"has no block 'blocks\.0'.*Pass teacher="):
        RecurrentSurrogate.from_pretrained(folder, teacher=nn.Linear(2, 2))


def test_a_teacher_of_more_blocks_is_refused(folder):
    deeper = vit()
    deeper.blocks.append(vit().blocks[0])
    with pytest.raises(SurrogateError, match="weights are of another architecture: 12 tensors do not fit"):
        RecurrentSurrogate.from_pretrained(folder, teacher=deeper)


def test_saving_again_rewrites_the_card_and_leaves_no_litter(folder):
    got = RecurrentSurrogate.from_pretrained(folder)
    assert "Not scored yet" in (folder / "README.md").read_text()
    got.scores = {"epsilon": 0.125}
    got.save_pretrained(folder)
    text = (folder / "README.md").read_text()
    assert "| epsilon | 0.125 |" in text
    assert "Not scored yet" not in text
    assert {path.name for path in folder.iterdir()} == FILES
    assert RecurrentSurrogate.from_pretrained(folder).scores == {"epsilon": 0.125}


def test_the_card_says_which_block_stands_for_which(tmp_path):
    made = fit(vit(), phases=[1, 1, 2, 1], contiguous=False)
    made.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: depthflow\n")
    assert "# Recurrent surrogate of VisionTransformer with 2 of 4 blocks" in text
    first, second = made.plan.medoids
    assert f"| 1 | 1–2, 4 | {first} |" in text
    assert f"| 2 | 3 | {second} |" in text
    assert "| steps | [2, 2] |" in text
    assert "| samples | 9 |" in text


def test_the_hub_s_arguments_do_not_disturb(surrogate, folder):
    got = RecurrentSurrogate.from_pretrained(str(folder), local_files_only=True, revision="main", token=False)
    require_equal(got, surrogate, images())


def test_never_fitted_is_nothing_to_save(surrogate, tmp_path):
    with pytest.raises(SurrogateError, match=r"was never fitted; there is nothing to save\. Use fit_surrogate"):
        RecurrentSurrogate(vit(), surrogate.plan).save_pretrained(tmp_path)


def test_a_newer_format_is_refused(folder):
    change_config(folder, format=2)
    with pytest.raises(SurrogateError, match=r"has format 2; this depthflow reads up to 1\. Update depthflow"):
        RecurrentSurrogate.from_pretrained(folder)


def test_a_model_of_another_kind_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(SurrogateError, match=r"holds no surrogate of depthflow's: its config\.json has no plan"):
        RecurrentSurrogate.from_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda folder: (folder / "config.json").unlink(), "No such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 40), "."),
        (
            lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
            ".",
        ),
    ],
    ids=["no config", "no weights", "no safetensors", "cut short"],
)
def test_a_folder_that_is_no_surrogate_is_refused(folder, spoil, text):
    spoil(folder)
    with pytest.raises(
        SurrogateError, match=rf"holds no surrogate that can be read: .*{text}.*made by save_pretrained"
    ):
        RecurrentSurrogate.from_pretrained(folder)


def test_a_config_that_is_no_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(SurrogateError, match=r"holds no surrogate that can be read: .*made by save_pretrained"):
        RecurrentSurrogate.from_pretrained(folder)


def test_weights_that_are_missing_or_left_over_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    name = min(weights)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(SurrogateError, match=rf"another architecture: 1 tensors do not fit, first '{name}'"):
        RecurrentSurrogate.from_pretrained(folder)


def test_blocks_given_by_the_caller_come_back(tmp_path):
    class Stack(Chain):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tower = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 8, batch_first=True) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.tower:
                x = block(x)
            return x

    inputs = torch.randn(9, 7, 12, generator=torch.Generator().manual_seed(1))
    made = fit(Stack(), inputs, blocks="tower")
    made.save_pretrained(tmp_path)
    require_equal(RecurrentSurrogate.from_pretrained(tmp_path, teacher=Stack()), made, inputs)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SurrogateError, match=r"nowhere holds no surrogate that can be read: .*made by save_pretrained"):
        RecurrentSurrogate.from_pretrained(tmp_path / "nowhere")


def test_an_argument_that_is_not_known_is_refused(folder):
    with pytest.raises(ParameterError, match=r"from_pretrained knows teacher= and revision, .*; got 'model'"):
        RecurrentSurrogate.from_pretrained(folder, model=vit())
