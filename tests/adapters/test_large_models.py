"""Models as large ones are run: in parts, away on disk, compiled, in few bits, checkpointed, wrapped, shared out.

Everything here runs on the CPU, where offloaded parts lie on the device "meta" as they do beside a GPU. Which device
inputs go to is tested with accelerate's hooks alone, as only a machine with several devices has another one.
"""

from __future__ import annotations

import contextlib
import copy
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch._dynamo.utils
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize

import depthflow
from depthflow.errors import ModelError, ParameterError, RecordError, SurrogateError, UnsupportedModelError
from depthflow.models import placement
from depthflow.models.fingerprint import fingerprint
from tests.adapters.families import CASES, DEPTH, Case
from tests.adapters.runs import answer, passed_on, states_by_plain_hooks, take
from tests.tolerances import FLOAT32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FAMILIES = {case.name: case for case in CASES}
TIMM, BERT, GPT2 = FAMILIES["timm ViT"], FAMILIES["hf BERT"], FAMILIES["hf GPT-2"]
HF = FAMILIES["hf ViT"]
VISION = [TIMM, HF]


def case_id(value: Any) -> str | None:
    return value.name if isinstance(value, Case) else None


def plain_states(case: Case) -> np.ndarray:
    return states_by_plain_hooks(case, case.model(), case.batch())


def left(model: nn.Module) -> Any:
    """Return what of a model, whose weights may be away, must be as it was."""
    return (
        [(name, p.device, p.requires_grad, p.dtype) for name, p in model.named_parameters()],
        [(name, b.device) for name, b in model.named_buffers()],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()],
        [id(getattr(m, "_hf_hook", None)) for m in model.modules()],
        copy.copy(getattr(model, "hf_device_map", None)),
    )


# parts elsewhere


def halves(model: nn.Module, folder: Path) -> nn.Module:
    """Place the last parts of a model on disk and the others on the CPU."""
    names = [name for name, _ in model.named_children()]
    where = {name: "disk" if place > 0 else "cpu" for place, name in enumerate(names)}
    where |= {name: "cpu" for name, _ in model.named_parameters(recurse=False)}
    return dispatch_model(model, where, main_device="cpu", offload_dir=folder)


AWAY: dict[str, Callable[[nn.Module, Any], nn.Module]] = {
    "CPU offload": lambda model, folder: cpu_offload(model, "cpu"),
    "disk offload": lambda model, folder: disk_offload(model, folder, "cpu"),
    "device map": halves,
}

pytestmark = pytest.mark.filterwarnings("ignore:The following device_map keys")


@pytest.mark.parametrize("way", AWAY)
@pytest.mark.parametrize("case", [TIMM, HF, GPT2], ids=case_id)
def test_offloaded_model_gives_the_states_of_the_plain_one(case: Case, way: str, tmp_path: Path) -> None:
    model = AWAY[way](case.model().train(), tmp_path)
    before = left(model)
    assert any(tensor.is_meta for tensor in model.state_dict().values())
    traj = take(case, model, case.batch())
    np.testing.assert_array_equal(traj.values, plain_states(case))
    assert traj.attrs["modules"][0] == case.names
    assert left(model) == before
    assert depthflow.inspect(model, case.batch()).blocks == tuple(traj.attrs["modules"])


@pytest.mark.parametrize(
    "where", [{"": "disk"}, {"": "cpu"}, "auto", {"wte": "cpu", "wpe": "cpu", "h": "disk", "ln_f": "cpu"}]
)
def test_a_model_loaded_with_a_device_map(where: Any, tmp_path: Path) -> None:
    plain = GPT2.model()
    plain.save_pretrained(tmp_path / "saved")
    model = type(plain).from_pretrained(tmp_path / "saved", device_map=where, offload_folder=tmp_path / "away")
    before = left(model)
    np.testing.assert_array_equal(take(GPT2, model, GPT2.batch()).values, plain_states(GPT2))
    assert left(model) == before
    assert fingerprint(placement.Weights(model)) == fingerprint(plain.state_dict())


def test_a_store_of_the_model_in_memory_is_continued_with_it_offloaded(tmp_path: Path) -> None:
    batch, path = TIMM.batch(), tmp_path / "states.zarr"

    def stops_after_one() -> Iterator[Tensor]:
        yield batch[:1]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        take(TIMM, TIMM.model(), stops_after_one(), store=path)
    model = AWAY["disk offload"](TIMM.model(), tmp_path / "away")
    traj = take(TIMM, model, (batch[place : place + 1] for place in range(3)), store=path)
    np.testing.assert_array_equal(traj.values, plain_states(TIMM))


@pytest.mark.parametrize("way", AWAY)
def test_offloaded_model_is_left_as_it_was_after_a_failure(way: str, tmp_path: Path) -> None:
    model = AWAY[way](TIMM.model(), tmp_path)
    model.blocks[3].register_forward_pre_hook(lambda *_: 1 / 0)
    before = left(model)
    with pytest.raises(RecordError, match="ZeroDivisionError"):
        take(TIMM, model, TIMM.batch())
    assert left(model) == before


def test_interrupted_offloaded_model_runs_again(tmp_path: Path) -> None:
    model = AWAY["disk offload"](TIMM.model(), tmp_path)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.blocks[2].mlp.fc1.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        take(TIMM, model, TIMM.batch())
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    handle.remove()
    np.testing.assert_array_equal(take(TIMM, model, TIMM.batch()).values, plain_states(TIMM))


@pytest.mark.parametrize("way", AWAY)
def test_offloaded_blocks_are_called_again(way: str, tmp_path: Path) -> None:
    model, plain = AWAY[way](TIMM.model().eval(), tmp_path), TIMM.model().eval()
    before = left(model)
    for measure in MEASURES.values():
        xr_equal(measure(model, TIMM.batch()), measure(plain, TIMM.batch()))
    assert left(model) == before, "also what is trained, which the Jacobian turns off"


def test_offloaded_teacher_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(SurrogateError, match=r"copies the model's weights, some of which are offloaded. Load"):
        depthflow.fit_surrogate(AWAY["disk offload"](TIMM.model(), tmp_path), TIMM.batch(), progress=False)


def xr_equal(found: Any, expected: Any) -> None:
    assert list(found.data_vars) == list(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


MEASURES: dict[str, Callable[[nn.Module, Any], Any]] = {
    "perturb": lambda model, x: depthflow.perturb(model, x, depth=2, tokens=[0, 1], n_draws=2, progress=False),
    "jacobian": lambda model, x: depthflow.jacobian(model, x, tokens=[0], progress=False),
    "swap_blocks": lambda model, x: depthflow.swap_blocks(model, x, progress=False),
}


@pytest.mark.parametrize("way", AWAY)
def test_device_is_refused_of_a_model_that_is_placed(way: str, tmp_path: Path) -> None:
    model = AWAY[way](TIMM.model(), tmp_path)
    before = left(model)
    with pytest.raises(ParameterError, match=r"cannot move a model that accelerate has placed. Leave device=None, and"):
        take(TIMM, model, TIMM.batch(), device="cpu")
    assert left(model) == before


def test_device_is_refused_of_a_model_on_several_devices() -> None:
    model = TIMM.model()
    model.head.to("meta")
    model.head.register_forward_pre_hook(lambda *_: None)  # which may bring it in, for all that can be known
    with pytest.raises(ParameterError, match=r"lies on several devices \(cpu, meta\). Leave device=None"):
        take(TIMM, model, TIMM.batch(), device="cpu")


def test_a_model_without_values_is_refused() -> None:
    model = TIMM.model().to("meta")
    with pytest.raises(ModelError, match=r"VisionTransformer has no values for 'cls_token'.*'meta'.*Load the weights"):
        take(TIMM, model, TIMM.batch())
    model = TIMM.model()
    model.blocks[2].mlp.to("meta")
    with pytest.raises(ModelError, match=r"no values for 'blocks.2.mlp.fc1.weight'"):
        take(TIMM, torch.compile(model, backend="eager"), TIMM.batch())
    with pytest.raises(ParameterError, match=r"cannot use device='meta': what runs there has shapes and no values"):
        take(TIMM, TIMM.model(), TIMM.batch(), device="meta")


def test_inputs_go_where_the_first_placed_part_runs() -> None:
    model = nn.Sequential(nn.Linear(3, 3, device="meta"), nn.Sequential(nn.Linear(3, 3)))
    assert placement.home(model) == torch.device("cpu"), "meta is no place"
    add_hook_to_module(model[1][0], AlignDevicesHook(offload=False))
    assert placement.home(model) == torch.device("cpu"), "a hook without a place"
    model[0]._hf_hook = AlignDevicesHook("cuda:1", offload=True)
    assert placement.home(model) == torch.device("cuda:1")
    assert placement.home(nn.Identity()) is None


# compiled


def each_in_the_list(case: Case, model: nn.Module) -> nn.Module:
    inner = case.blocks(model)[0]
    holder = next(m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and inner in m.children())
    for place, block in enumerate(holder):
        holder[place] = torch.compile(block, backend="eager")
    return model


def list_itself(case: Case, model: nn.Module) -> nn.Module:
    model.blocks = torch.compile(model.blocks, backend="eager")
    return model


class Wrapper(nn.Module):
    """A model inside, as adapters for fine-tuning hold it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model.model(*args, **kwargs)


COMPILED: dict[str, Callable[[Case, nn.Module], nn.Module]] = {
    "whole": lambda case, model: torch.compile(model, backend="eager"),
    "in place": lambda case, model: model.compile(backend="eager") or model,
    "in the list": each_in_the_list,
}


@pytest.fixture
def dynamo() -> Iterator[Callable[[], int]]:
    """Give a function that counts the graphs compiled so far."""
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


@pytest.mark.parametrize(("case", "way"), [(TIMM, "whole"), (TIMM, "in place"), (HF, "in the list")], ids=case_id)
def test_recording_neither_compiles_nor_undoes_it(case: Case, way: str, dynamo: Callable[[], int]) -> None:
    model, batch = COMPILED[way](case, case.model().eval()), case.batch()
    expected = plain_states(case)
    np.testing.assert_array_equal(take(case, model, batch).values, expected)
    assert dynamo() == 0, "recording runs uncompiled"
    answer(model, batch)
    compiled = dynamo()
    assert compiled > 0, "the model is still compiled at its first call"
    traj = take(case, model, batch)
    np.testing.assert_array_equal(traj.values, expected)
    answer(model, batch)
    assert dynamo() == compiled, "the code that was compiled before is used again"
    assert traj.attrs["modules"][0] == case.names
    assert depthflow.inspect(model).blocks[0] == case.names


def test_compiled_list_of_blocks(dynamo: Callable[[], int]) -> None:
    model = list_itself(TIMM, TIMM.model().eval())
    answer(model, TIMM.batch())
    for given in (None, "blocks", list(model.blocks._orig_mod)):
        traj = depthflow.record(model, TIMM.batch(), blocks=given, progress=False)
        np.testing.assert_array_equal(traj.values, plain_states(TIMM))
        assert traj.attrs["modules"] == [f"blocks.{number}" for number in range(DEPTH)]


def test_compiled_part_of_a_module_is_named_without_the_wrapper(dynamo: Callable[[], int]) -> None:
    model = Wrapper(torch.compile(HF.model(), backend="eager"))
    info = depthflow.inspect(model)
    assert (info.blocks[0], info.final_norm) == ("base_model.model.layers.0", "base_model.model.layernorm")
    for given in (None, "base_model.model.layers", "base_model.model._orig_mod.layers"):
        traj = depthflow.record(model, HF.batch(), blocks=given, progress=False)
        np.testing.assert_array_equal(traj.values, plain_states(HF))
        assert tuple(traj.attrs["modules"]) == info.blocks
    unknown = nn.Sequential(torch.compile(FAMILIES["bundled ViT"].model(), backend="eager"))
    with pytest.raises(UnsupportedModelError, match=r"Pass blocks='0.blocks' if"):
        depthflow.record(unknown, TIMM.batch(), progress=False)
    assert depthflow.inspect(unknown, blocks="0.blocks").blocks[0] == "0.blocks.0"


@pytest.mark.parametrize("measure", MEASURES)
def test_compiled_blocks_are_called_again(measure: str, dynamo: Callable[[], int]) -> None:
    model = TIMM.model().eval()
    for block in model.blocks:
        block.compile(backend="eager")
    answer(model, TIMM.batch())
    xr_equal(MEASURES[measure](model, TIMM.batch()), MEASURES[measure](TIMM.model().eval(), TIMM.batch()))


@pytest.mark.filterwarnings("ignore")
def test_programs_without_hooks_are_refused() -> None:
    case = FAMILIES["bundled ViT"]
    model, batch = case.model().eval(), case.batch()
    traced, program = torch.jit.trace(model, batch), torch.export.export(model, (batch,))
    remedy = r"Give the module that it was made from\.$"
    with pytest.raises(UnsupportedModelError, match=rf"TopLevelTracedModule is scripted or traced.*{remedy}"):
        take(case, traced, batch)
    with pytest.raises(UnsupportedModelError, match=rf"GraphModule is traced or exported.*{remedy}"):
        take(case, program.module(), batch)
    with pytest.raises(ModelError, match=rf"got ExportedProgram. {remedy}"):
        take(case, program, batch)
    with pytest.raises(ModelError, match=rf"got function. {remedy}"):
        take(case, torch.compile(torch.compile(model)), batch)
    with pytest.raises(RecordError, match=r"1 of 1 blocks did not run.*A scripted or exported model runs no hooks"):
        depthflow.record(program.module(), batch, blocks="blocks", progress=False)
    assert depthflow.inspect(traced).remedy == "Give the module that it was made from."
    with pytest.raises(ModelError, match=r"got str. A name such as 'timm:"):
        depthflow.record("timm:vit", batch)
    model.blocks[1] = torch.jit.trace(model.blocks[1], torch.randn(3, 17, 24))
    np.testing.assert_allclose(take(case, model, batch).values, plain_states(case), **FLOAT32)


# few bits, and what is set around the call


def states_passed_on(case: Case, model: nn.Module, batch: Any) -> np.ndarray:
    """Return depths 1 … L by plain hooks, in float32, of a model in another precision."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for block in case.blocks(model):
            hook = block.register_forward_hook(lambda _, args, output: seen.append(passed_on(output).float()))
            stack.callback(hook.remove)
        answer(model, batch)
    return torch.stack(seen, dim=1).numpy()


def cast(batch: Any, dtype: torch.dtype) -> Any:
    if isinstance(batch, dict):
        return {name: cast(value, dtype) for name, value in batch.items()}
    return batch.to(dtype) if batch.is_floating_point() else batch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [TIMM, HF, BERT, GPT2], ids=case_id)
def test_half_precision_states_become_float32_exactly(case: Case, dtype: torch.dtype) -> None:
    model = case.model().eval().to(dtype)
    traj = take(case, model, case.batch())
    assert traj.dtype == "float32"
    np.testing.assert_array_equal(traj.values[:, 1:], states_passed_on(case, model, cast(case.batch(), dtype)))


@pytest.mark.parametrize("case", VISION, ids=case_id)
def test_inputs_are_in_the_precision_of_the_matrices(case: Case) -> None:
    model = case.model().eval().to(torch.bfloat16)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
    tokens = [(name, parameter) for name, parameter in model.named_parameters() if "token" in name or "pos" in name]
    for _, parameter in tokens:
        parameter.data = parameter.data.float()
    assert next(iter(model.named_parameters()))[0] == tokens[0][0], "what comes first is no matrix"
    seen = []
    embedding = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with contextlib.suppress(RecordError):  # from what the model makes of it afterwards
        take(case, model, case.batch())
    assert set(seen) == {torch.bfloat16}


class LinearInEight(nn.Module):
    """A linear layer that keeps its weight in 8 bits and computes in the input's precision."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.to(x.dtype).T


def test_weights_in_eight_bits(tmp_path: Path) -> None:
    model = TIMM.model().eval()
    for block in model.blocks:
        block.mlp.fc1 = LinearInEight(block.mlp.fc1)
    traj = take(TIMM, model, TIMM.batch(), store=tmp_path / "states.zarr")
    np.testing.assert_array_equal(traj.values[:, 1:], states_passed_on(TIMM, model, TIMM.batch()))
    model.blocks[0].mlp.fc2.to(torch.float8_e4m3fn)
    with pytest.raises(
        RecordError, match=r"VisionTransformer failed on a batch of shape \(3, 3, 32, 32\): RuntimeError"
    ):
        take(TIMM, model, TIMM.batch())


@pytest.mark.filterwarnings("ignore")
def test_layers_quantised_to_int8() -> None:
    model = torch.ao.quantization.quantize_dynamic(TIMM.model().eval(), {nn.Linear}, dtype=torch.qint8)
    traj = take(TIMM, model, TIMM.batch())
    np.testing.assert_array_equal(traj.values[:, 1:], states_passed_on(TIMM, model, TIMM.batch()))


def test_autocast_around_the_call() -> None:
    model = TIMM.model().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        traj = take(TIMM, model, TIMM.batch())
        np.testing.assert_array_equal(traj.values[:, 1:], states_passed_on(TIMM, model, TIMM.batch()))
        with pytest.raises(RecordError, match=r"needs a model in float32 or float64.*rounded away in autocast"):
            MEASURES["perturb"](model, TIMM.batch())
    assert not np.array_equal(traj.values, plain_states(TIMM))


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, "meta"])
@pytest.mark.parametrize("stored", [False, True])
def test_defaults_that_are_set_around_the_call(default: Any, stored: bool, tmp_path: Path) -> None:
    model, batch, expected = TIMM.model(), TIMM.batch(), plain_states(TIMM)
    to = {"store": tmp_path / "states.zarr"} if stored else {}
    usual = torch.get_default_dtype()
    try:
        if isinstance(default, torch.dtype):
            torch.set_default_dtype(default)
        with torch.device(default) if default == "meta" else nullcontext():
            traj = take(TIMM, model, batch, **to)
            pieces = take(TIMM, model, (batch[start : start + 1] for start in range(3)))
    finally:
        torch.set_default_dtype(usual)
    np.testing.assert_array_equal(traj.values, expected)
    assert pieces.dtype == traj.dtype == "float32"


@pytest.mark.parametrize("measure", MEASURES)
def test_inference_mode_around_the_call(measure: str) -> None:
    model, batch = TIMM.model().eval(), TIMM.batch()
    expected = MEASURES[measure](model, batch)
    with torch.inference_mode():
        np.testing.assert_array_equal(take(TIMM, model, batch).values, plain_states(TIMM))
        found = MEASURES[measure](model, batch.clone())
        assert torch.is_inference_mode_enabled()
    xr_equal(found, expected)


def test_a_model_made_in_inference_mode_is_recorded() -> None:
    with torch.inference_mode():
        model = TIMM.model()
    np.testing.assert_array_equal(take(TIMM, model, TIMM.batch()).values, plain_states(TIMM))
    xr_equal(MEASURES["perturb"](model, TIMM.batch()), MEASURES["perturb"](TIMM.model(), TIMM.batch()))
    with pytest.raises(RecordError, match=r"made in torch.inference_mode. Give `copy.deepcopy\(model\)`"):
        MEASURES["jacobian"](model, TIMM.batch())
    xr_equal(MEASURES["jacobian"](copy.deepcopy(model), TIMM.batch()), MEASURES["jacobian"](TIMM.model(), TIMM.batch()))


# gradient checkpointing


def checkpointed(case: Case, training: bool) -> nn.Module:
    model = case.model().train(training)
    if case is TIMM:
        model.set_grad_checkpointing(True)
    else:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", [TIMM, HF, BERT, GPT2], ids=case_id)
def test_checkpointed_model_is_recorded_once_and_quietly(case: Case, training: bool, recwarn: Any, caplog: Any) -> None:
    model = checkpointed(case, training)
    kept = getattr(getattr(model, "config", None), "use_cache", None)
    ran = []
    case.blocks(model)[0].register_forward_hook(lambda *_: ran.append(None))
    traj = take(case, model, case.batch())
    np.testing.assert_array_equal(traj.values, plain_states(case))
    assert len(ran) == 1
    assert [str(warning.message) for warning in recwarn] == []
    assert caplog.records == []
    assert getattr(getattr(model, "config", None), "use_cache", None) == kept
    assert getattr(model, "grad_checkpointing", True) is True
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", VISION, ids=case_id)
def test_checkpointed_blocks_are_called_again(case: Case, measure: str) -> None:
    found = MEASURES[measure](checkpointed(case, training=True), case.batch())
    xr_equal(found, MEASURES[measure](case.model(), case.batch()))


# wrapped and shared out


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[None]:
    """Join a group of one process."""
    store = torch.distributed.FileStore(str(tmp_path / "group"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(case: Case) -> nn.Module:
    model = case.model()
    for block in case.blocks(model):
        torch.distributed.fsdp.fully_shard(block)
    return torch.distributed.fsdp.fully_shard(model)


WRAPPED: dict[str, Callable[[Case], nn.Module]] = {
    "DataParallel": lambda case: DataParallel(case.model()),
    "DistributedDataParallel": lambda case: DistributedDataParallel(case.model()),
    "of a compiled model": lambda case: DistributedDataParallel(torch.compile(case.model(), backend="eager")),
    "fully_shard": sharded,
}


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("case", VISION, ids=case_id)
def test_models_shared_out_among_processes(case: Case, way: str, tmp_path: Path) -> None:
    model = WRAPPED[way](case)
    kinds = [type(parameter.data) for parameter in model.parameters()]
    traj = take(case, model, case.batch(), store=tmp_path / "states.zarr")
    np.testing.assert_array_equal(traj.values, plain_states(case))
    assert traj.attrs["modules"][0] == case.names
    assert [type(parameter.data) for parameter in model.parameters()] == kinds


@pytest.mark.usefixtures("processes")
def test_shards_are_called_again_and_stay_where_they_are() -> None:
    model = sharded(TIMM)
    before = left(model), fingerprint(placement.Weights(model))
    assert before[1] == fingerprint(TIMM.model().state_dict())
    for measure in MEASURES.values():
        xr_equal(measure(model, TIMM.batch()), measure(TIMM.model(), TIMM.batch()))
    assert (left(model), fingerprint(placement.Weights(model))) == before
    with pytest.raises(
        ParameterError, match=r"cannot move a model whose weights are shared out among processes. Leave"
    ):
        take(TIMM, model, TIMM.batch(), device="cpu")


def test_a_model_held_by_a_wrapper_for_fine_tuning() -> None:
    traj = take(HF, Wrapper(HF.model()), HF.batch())
    np.testing.assert_array_equal(traj.values, plain_states(HF))
    assert traj.attrs["modules"][0] == "base_model.model.layers.0"
    assert traj.token_type.values.tolist() == HF.types


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize("case", VISION, ids=case_id)
def test_reparametrised_weights(case: Case) -> None:
    model, twin = case.model().eval(), case.model().eval()
    for block in case.blocks(model):
        layers = [layer for layer in block.modules() if isinstance(layer, nn.Linear)]
        parametrizations.weight_norm(layers[0])
        parametrize.register_parametrization(layers[1], "weight", Doubled())
    for block in case.blocks(twin):
        layers = [layer for layer in block.modules() if isinstance(layer, nn.Linear)]
        layers[1].weight.data.mul_(2)
    traj = take(case, model, case.batch())
    np.testing.assert_allclose(traj.values, states_by_plain_hooks(case, twin, case.batch()), **FLOAT32)
    assert traj.attrs["modules"][0] == case.names
    assert sum(map(parametrize.is_parametrized, model.modules())) == 2 * DEPTH


# text that is generated


def language_model() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=24, n_layer=DEPTH, n_head=3, n_positions=32, vocab_size=99)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("use_cache", [None, True, False])
def test_states_of_a_decoder_do_not_depend_on_its_cache(use_cache: bool | None) -> None:
    model, batch = language_model(), GPT2.batch()
    assert model.lm_head.weight is model.transformer.wte.weight
    given = batch if use_cache is None else {**batch, "use_cache": use_cache}
    traj = depthflow.record(model, given, batch_size=2, progress=False)
    case = Case("", lambda: model, lambda m: list(m.transformer.h), [], None, "", None, GPT2.inputs)
    np.testing.assert_array_equal(
        traj.values[:2], states_by_plain_hooks(case, model, {k: v[:2] for k, v in batch.items()})
    )
    assert traj.attrs["modules"][0] == "transformer.h.0"
    assert model.config.use_cache is True


def test_logits_of_the_last_token_alone_leave_the_states() -> None:
    model, batch = language_model(), GPT2.batch()
    whole = depthflow.record(model, batch, progress=False)
    np.testing.assert_array_equal(depthflow.record(model, {**batch, "logits_to_keep": 1}, progress=False), whole)


def test_a_cache_among_the_inputs_is_refused_and_left() -> None:
    model, batch = language_model(), GPT2.batch()
    cache = model(**batch, use_cache=True).past_key_values
    with pytest.raises(RecordError, match=r"hold past_key_values.*Leave it out, and give all tokens as input_ids"):
        depthflow.record(model, {"input_ids": batch["input_ids"][:, :1], "past_key_values": cache}, progress=False)
    assert cache.get_seq_length() == 7
    with pytest.raises(RecordError, match=r"Turn off caches"):
        MEASURES["jacobian"](model, {**batch, "use_cache": True})
