"""Train the bundled digits model from scratch, with a fixed seed, and write its weights and settings.

    python tutorials/training/digits_vit.py [--epochs 120] [--seed 1] [--stochastic-depth 0.1] [--output depthflow/data]

About five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from depthflow.datasets import digits
from depthflow.models.vit import VisionTransformer, ViTSettings

BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
WARMUP_SHARE = 0.05


def tensors(split: str) -> tuple[Tensor, Tensor]:
    """Return one split's images and labels as tensors."""
    data = digits(split)
    return torch.from_numpy(data.images), torch.from_numpy(data.labels)


def shifted(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its side, one pixel of eight, filling with background."""
    reach = images.shape[2] // 8
    padded = functional.pad(images, (reach, reach, reach, reach))
    row, column = torch.randint(0, 2 * reach + 1, (2, len(images)))
    rows = row[:, None] + torch.arange(images.shape[2])
    columns = column[:, None] + torch.arange(images.shape[3])
    sample = torch.arange(len(images))[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def accuracy(model: VisionTransformer, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that are classified rightly."""
    model.eval()
    with torch.no_grad():
        found = [model(part).argmax(1) for part in images.split(1024)]
    return float((torch.cat(found) == labels).double().mean())


def train(
    images: Tensor, labels: Tensor, settings: ViTSettings, *, epochs: int, seed: int, batch_size: int = BATCH
) -> VisionTransformer:
    """Return the model after ``epochs`` passes over the images, on the images' device."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # one order of summation, so that a seed gives the same weights on any machine size
    model = VisionTransformer(settings).to(images.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = len(images) // batch_size
    steps = epochs * batches

    def rate(step: int) -> float:
        warmup = WARMUP_SHARE * steps
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in range(epochs):
        model.train()
        for batch in torch.randperm(len(images)).split(batch_size)[:batches]:
            logits = model(shifted(images[batch]))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}: training loss {loss.item():.3f}", flush=True)
    return model


def main() -> None:
    """Train, score on the unseen images, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stochastic-depth", type=float, default=ViTSettings().stochastic_depth)
    parser.add_argument("--output", type=Path, default=Path("depthflow/data"))
    arguments = parser.parse_args()
    settings = ViTSettings(stochastic_depth=arguments.stochastic_depth)
    model = train(*tensors("train"), settings, epochs=arguments.epochs, seed=arguments.seed)
    score = accuracy(model, *tensors("test"))
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), arguments.output / "digits_vit.safetensors")
    record = {
        "settings": asdict(model.settings),
        "training": {
            "epochs": arguments.epochs,
            "seed": arguments.seed,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "label_smoothing": LABEL_SMOOTHING,
            "augmentation": "shift by up to one pixel",
        },
        "test_accuracy": round(score, 6),
    }
    (arguments.output / "digits_vit.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"test accuracy {score:.4f}")


if __name__ == "__main__":
    main()
