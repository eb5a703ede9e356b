"""Predictions for batches of clips: one row of values per clip."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stabn.batch.parquet import Row, quantised_maps
from stabn.batch.prefetch import ClipView
from stabn.data.transforms import Preprocessing
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_predictor, silence_lightning
from stabn.errors import NotFiniteError, UserError
from stabn.nn import Output, VideoNetwork

_HIGHER_PRECISION = "try --engine.precision 32-true"


class ArchivePredictor:
    """A network on its device.

    Args:
        model: with or without attention branch.
        preprocessing: of its clips.
        class_names: K names.
        engine: device and precision.

    Raises:
        UserError: this machine has no such engine.
    """

    def __init__(
        self, model: VideoNetwork, preprocessing: Preprocessing, class_names: Sequence[str], engine: EngineRecipe
    ) -> None:
        with silence_lightning():
            one_device = replace(engine, devices="1", strategy="auto", nodes=1)
            model, trainer = build_predictor(model.double() if engine.precision == "64-true" else model, one_device)
        self.device = trainer.strategy.root_device
        self._precision = trainer.precision_plugin
        self._dtype = next(model.parameters()).dtype
        self._model = model.to(self.device)
        self._preprocessing = preprocessing
        self._class_names = tuple(class_names)

    def rows(self, views: Sequence[ClipView]) -> list[Row]:
        """The predictions by column, or `error`, of at least one clip.

        Raises:
            UserError: the clips do not fit into the memory of the device.
        """
        try:
            predictions = self._predict(torch.cat([view.pixels for view in views]), len(views))
        except torch.OutOfMemoryError:
            raise UserError(
                f"--batch-size: got {len(views)}, more than fits into the memory of {self.device}; give less"
            ) from None
        except NotFiniteError as error:  # in the attention, and maybe in that of one clip alone
            if len(views) > 1:
                return [row for view in views for row in self.rows([view])]
            return [{"error": f"the network has no prediction for this clip ({error}); {_HIGHER_PRECISION}"}]
        return [
            self._row(view, {name: values[number] for name, values in predictions.items()})
            for number, view in enumerate(views)
        ]

    def _predict(self, pixels: UInt8[Tensor, "bt 3 s s"], clips: int) -> dict[str, np.ndarray]:
        """By name, an array with an entry per clip; `pixels` has the frames of all clips in order."""
        with self.device:  # also for intermediate tensors
            normalised = self._preprocessing.normalised(pixels.to(self.device))
        clip_bcthw = normalised.unflatten(1, (clips, -1)).transpose(0, 1).to(self._dtype).contiguous()
        with torch.inference_mode(), self._precision.forward_context():
            output: Output = self._model(clip_bcthw)
        predictions = {"probabilities": output.logits.float().softmax(1)}
        if output.attention is not None and output.attention_logits is not None:
            predictions["branch"] = output.attention_logits.float().softmax(1)
            predictions["temporal"] = output.attention.temporal.float()
            predictions["spatial"] = output.attention.spatial.float()
        return {name: values.cpu().numpy() for name, values in predictions.items()}

    def _row(self, view: ClipView, prediction: Mapping[str, np.ndarray]) -> Row:
        probabilities = prediction["probabilities"]
        if not np.isfinite(probabilities).all():
            return {"error": f"the network's prediction for this clip is not a number; {_HIGHER_PRECISION}"}
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
        if "branch" not in prediction:
            return row
        branch, maps = prediction["branch"], prediction["spatial"]
        return row | {
            "attention_branch_predicted": self._class_names[int(branch.argmax())],
            "attention_branch_probability": float(branch.max()),
            "temporal_attention": prediction["temporal"],
            "spatial_attention": quantised_maps(maps),
            "spatial_shape": list(maps.shape),
        }
