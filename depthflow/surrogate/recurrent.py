"""The surrogate: a model's own shell around a few blocks, each applied at several depths."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from depthflow.errors import ParameterError, SurrogateError
from depthflow.models.detect import adapt
from depthflow.models.generic import GivenBlocks
from depthflow.surrogate.blocks import CopiedBlock, FreshBlock
from depthflow.surrogate.saving import DOWNLOAD, load, read, write
from depthflow.surrogate.settings import SurrogateSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from depthflow.models.base import Adapter

PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Plan:
    """How a surrogate is built from its teacher; JSON holds all of it.

    Attributes
    ----------
    blocks : tuple of str
        The teacher's blocks in the order of depth, by dotted name.
    phases : tuple of int
        Which of the surrogate's blocks, counted from 1, stands for each.
    medoids : tuple of int
        The teacher's block, counted from 1, that is most like the others of each phase.
    width : int
        Features of a state.
    depth_scale : bool
        Whether a block is told its depth.
    writers : tuple of tuple of str
        For copies of the medoid blocks, the layers that write each one's branches; empty where not known.
    fresh : mapping, optional
        For new blocks, the arguments of :class:`FreshBlock`.
    """

    blocks: tuple[str, ...]
    phases: tuple[int, ...]
    medoids: tuple[int, ...]
    width: int
    depth_scale: bool = True
    writers: tuple[tuple[str, ...], ...] = ()
    fresh: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """Return the plan whose ``asdict`` JSON has kept."""
        lists = {name: tuple(plain[name]) for name in ("blocks", "phases", "medoids")}
        return cls(**{**plain, **lists, "writers": tuple(map(tuple, plain["writers"]))})


class Step(nn.Module):
    """One depth of a surrogate: the block of its phase, told where it stands.

    Parameters
    ----------
    block : FreshBlock or CopiedBlock
        Shared with the other depths of the phase.
    place : float
        The depth that it leads to, over the number of blocks: in (0, 1].
    teacher_block : torch.nn.Module
        What it stands for; its plain attributes, which some models read from outside, are kept.
    """

    depth: Tensor

    def __init__(self, block: nn.Module, place: float, teacher_block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.stands_for = type(teacher_block)
        self.register_buffer("depth", torch.tensor([place]), persistent=False)
        for name, value in vars(teacher_block).items():
            if isinstance(value, PLAIN) and not name.startswith("_") and not hasattr(self, name):
                setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the teacher's block would, of the surrogate's state."""
        return self.block(self.depth, args, kwargs)


class RecurrentSurrogate(nn.Module, ModelHubMixin):
    """A model whose L blocks are replaced by k ≪ L, each applied at all depths of its phase.

    It is called as its teacher is, and gives what its teacher gives: the teacher's embedding, final norm and head are
    kept, frozen. :func:`record`, :func:`perturb`, :func:`jacobian` and :func:`swap_blocks` take it as any model.
    :func:`fit_surrogate` makes one.

    Parameters
    ----------
    teacher : torch.nn.Module
        The model; it is copied, but for its blocks, and left as it is.
    plan : Plan
        Which block stands for which.

    Attributes
    ----------
    blocks : torch.nn.ModuleList
        The k blocks.
    shell : torch.nn.Module
        The teacher's copy, in whose blocks' places stand the steps of the recurrence.
    plan : Plan
        How it is built.
    settings : SurrogateSettings or None
        How it was trained.
    history : dict of list
        Of the training: ``step``, ``stage``, ``loss``, ``r2`` and ``seconds``, and the same of each validation.
    scores : dict
        What :func:`score_surrogate` found, for the model card; empty until then.

    References
    ----------
    Jacobs et al., Block-Recurrent Dynamics in Vision Transformers, arXiv:2512.19941.
    """

    def __init__(self, teacher: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.settings: SurrogateSettings | None = None
        self.history: dict[str, list[float]] = {}
        self.scores: dict[str, Any] = {}
        self.teacher: dict[str, Any] = {}
        originals = [_submodule(teacher, name) for name in plan.blocks]
        memo: dict[int, Any] = {}
        self.blocks = nn.ModuleList(_block(plan, phase, originals, memo) for phase in range(len(plan.medoids)))
        like = next(parameter for parameter in originals[0].parameters() if parameter.is_floating_point())
        steps = []
        for depth, (phase, original) in enumerate(zip(plan.phases, originals, strict=True), start=1):
            step = Step(self.blocks[phase - 1], depth / len(originals), original)
            steps.append(step)
            memo[id(original)] = step
        self.shell = copy.deepcopy(teacher, memo).requires_grad_(False)
        _turn_off_caches(self.shell)
        self.blocks.requires_grad_(True)
        self.blocks.to(like)
        for step in steps:
            step.to(like)
        self.eval()

    @property
    def phases(self) -> np.ndarray:
        """The phase of each of the L blocks, counted from 1, shape (block,)."""
        return np.array(self.plan.phases)

    @property
    def steps(self) -> list[nn.Module]:
        """The L steps of the recurrence in the order of depth, called as the teacher calls its blocks."""
        return [self.shell.get_submodule(name) for name in self.plan.blocks]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the teacher returns, made of the surrogate's states."""
        return self.shell(*args, **kwargs)

    def depthflow_adapter(self) -> Adapter:
        """Return how a recorder sees it: the teacher's family, with the steps as blocks."""
        return _Adapter(self)

    def _save_pretrained(self, save_directory: Path) -> None:
        write(self, save_directory)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, teacher: nn.Module | None = None, **download: Any
    ) -> RecurrentSurrogate:
        """Return the surrogate kept in a folder or on the hub, on the CPU and in evaluation mode.

        Parameters
        ----------
        pretrained_model_name_or_path : str or Path
            A folder that ``save_pretrained`` made, or the name of a repository on the hub.
        teacher : torch.nn.Module, optional
            A model of the teacher's architecture, with any weights, where it cannot be built from what was kept.
        **download
            What the hub is asked with: ``revision``, ``cache_dir``, ``force_download``, ``token``,
            ``local_files_only``.

        Raises
        ------
        ParameterError
            If an argument is not known.
        SurrogateError
            If there is no surrogate, a newer depthflow wrote it, or ``teacher`` is needed or does not fit.
        """
        strange = sorted(download.keys() - set(DOWNLOAD))
        if strange:
            raise ParameterError(f"from_pretrained knows teacher= and {', '.join(DOWNLOAD)}; got {strange[0]!r}.")
        kept = read(str(pretrained_model_name_or_path), download)
        surrogate = cls(kept.shell(teacher), Plan.from_json(kept.config["plan"]))
        load(surrogate, kept.weights)
        surrogate.settings = SurrogateSettings.from_json(kept.config["settings"])
        surrogate.teacher = kept.config["teacher"]
        surrogate.history, surrogate.scores = kept.config["history"], kept.config["scores"]
        return surrogate

    def weights(self) -> dict[str, Tensor]:
        """Return every parameter and persistent buffer, each once, by name."""
        kept = set(self.state_dict(keep_vars=True))
        named = [*self.named_parameters(), *self.named_buffers()]
        return {name: tensor for name, tensor in named if name in kept}


class _Adapter(GivenBlocks):
    """A surrogate as a recorder sees it."""

    def __init__(self, surrogate: RecurrentSurrogate) -> None:
        inner = adapt(surrogate.shell)
        found = type(inner)(surrogate, f"shell.{inner.prefix}".rstrip("."))
        super().__init__(surrogate, surrogate.steps, found)
        self._name = f"RecurrentSurrogate (k = {len(surrogate.blocks)}) of {inner.name()}"

    def name(self) -> str:
        """Return the teacher's name and how many blocks there are."""
        return self._name


def _submodule(teacher: nn.Module, name: str) -> nn.Module:
    try:
        return teacher.get_submodule(name)
    except AttributeError:
        raise SurrogateError(
            f"{type(teacher).__name__} has no block {name!r}, for which the surrogate has one. Pass teacher=, a model "
            "built exactly as the one that the surrogate was fitted to."
        ) from None


def _turn_off_caches(shell: nn.Module) -> None:
    """Let no module keep keys and values by the number of its layer, as one block is several layers."""
    for module in shell.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "use_cache", None):
            config.use_cache = False


def _block(plan: Plan, phase: int, originals: Sequence[nn.Module], memo: dict[int, Any]) -> nn.Module:
    """Return the block of ``phase``, counted from 0; what a copy shares with the shell goes through ``memo``."""
    if plan.fresh is not None:
        return FreshBlock(plan.width, depth_scale=plan.depth_scale, **plan.fresh)
    copied = copy.deepcopy(originals[plan.medoids[phase] - 1], memo)
    return CopiedBlock(copied, plan.width, plan.writers[phase], plan.depth_scale)
