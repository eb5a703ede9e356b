"""Networks whose batch norms are not the identity, so that forgetting one shows."""

import torch
from torch import Tensor


def with_uneven_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """The model in evaluation mode with weights and, unlike a fresh one, uneven normalisation; the same every time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.uniform_(0.5, 1.0, generator=generator)
            elif value.ndim <= 1 and value.is_floating_point():
                value.normal_(0, 0.1, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
    return model.eval()


def random_clip(frames: int = 4, height: int = 32, width: int = 32, batch: int = 1, dtype=torch.float32) -> Tensor:
    """(batch, 3, frames, height, width), the same every time."""
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def parts(output) -> dict[str, Tensor]:
    """The tensors of an output by their names in the official code's reference outputs."""
    return {
        "logits_perception": output.logits.detach(),
        "logits_attention": output.attention_logits.detach(),
        "spatial": output.attention.spatial.detach(),
        "temporal": output.attention.temporal.detach(),
    }
