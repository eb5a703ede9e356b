"""Networks whose batch norms are not the identity, so that forgetting one shows."""

import torch


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
