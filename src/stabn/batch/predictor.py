"""A network on its device answers for clips that were read: one row of values per clip."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stabn.batch.parquet import Row, compressed
from stabn.batch.prefetch import View
from stabn.data.transforms import Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_answerer, quietly
from stabn.errors import NotFiniteError, UserError
from stabn.nn import Output, ResNet3D

_EXACTER = "try --engine.precision 32-true"


class Network:
    """A network, on one device.

    Args:
        model: with or without attention.
        preprocessing: how clips are prepared for it.
        class_names: K names.
        engine: on what it runs.

    Raises:
        UserError: this machine has no such engine.
    """

    def __init__(
        self, model: ResNet3D, preprocessing: Preprocessing, class_names: Sequence[str], engine: EngineRecipe
    ) -> None:
        with quietly():
            alone = replace(engine, devices="1", strategy="auto", nodes=1)
            model, trainer = build_answerer(model.double() if engine.precision == "64-true" else model, alone)
        self.device = trainer.strategy.root_device
        self._precision = trainer.precision_plugin
        self._dtype = next(model.parameters()).dtype
        self._model = model.to(self.device)
        self._preprocessing = preprocessing
        self._class_names = tuple(class_names)

    def rows(self, views: Sequence[View]) -> list[Row]:
        """The network's answers, or why there is none, by column.

        Args:
            views: at least one.

        Raises:
            UserError: so many clips do not fit into the memory of the device.
        """
        try:
            answered = self._answered(torch.cat([view.pixels for view in views]), len(views))
        except torch.OutOfMemoryError:
            raise UserError(
                f"--batch-size: got {len(views)}, more than fits into the memory of {self.device}; give less"
            ) from None
        except NotFiniteError as error:  # in the attention, and maybe in that of one clip alone
            if len(views) > 1:
                return [row for view in views for row in self.rows([view])]
            return [{"error": f"the network gives no answer for this clip ({error}); {_EXACTER}"}]
        return [
            self._row(view, {name: values[number] for name, values in answered.items()})
            for number, view in enumerate(views)
        ]

    def _answered(self, pixels: UInt8[Tensor, "bt 3 s s"], clips: int) -> dict[str, np.ndarray]:
        """By name, an array with an entry per clip, of clips whose frames follow each other."""
        with self.device:  # also for what is made on the way
            normalised = self._preprocessing.normalised(pixels.to(self.device))
        clip_bcthw = normalised.unflatten(1, (clips, -1)).transpose(0, 1).to(self._dtype).contiguous()
        with torch.inference_mode(), self._precision.forward_context():
            output: Output = self._model(clip_bcthw)
        answered = {"probabilities": output.logits.float().softmax(1)}
        if output.attention is not None and output.attention_logits is not None:
            answered["branch"] = output.attention_logits.float().softmax(1)
            answered["temporal"] = output.attention.temporal.float()
            answered["spatial"] = output.attention.spatial.float()
        return {name: values.cpu().numpy() for name, values in answered.items()}

    def _row(self, view: View, answered: Mapping[str, np.ndarray]) -> Row:
        probabilities = answered["probabilities"]
        if not np.isfinite(probabilities).all():
            return {"error": f"the network's answer for this clip is not a number; {_EXACTER}"}
        best = int(probabilities.argmax())
        row: Row = {
            "predicted": self._class_names[best],
            "predicted_index": best,
            "probability": float(probabilities[best]),
            "probabilities": probabilities,
            "frame_indices": view.frame_indices.numpy(),
            "timestamps": view.timestamps.numpy(),
            "crop": list(view.crop),
        }
        if "branch" not in answered:
            return row
        branch, maps = answered["branch"], answered["spatial"]
        return row | {
            "attention_branch_predicted": self._class_names[int(branch.argmax())],
            "attention_branch_probability": float(branch.max()),
            "temporal_attention": answered["temporal"],
            "spatial_attention": compressed(maps),
            "spatial_shape": list(maps.shape),
        }
