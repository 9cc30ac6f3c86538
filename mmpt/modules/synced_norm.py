"""BatchNorm over the batches of all processes, on GPUs and on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.ops.distributed import all_gather, world_size


class SyncedBatchNorm(nn.SyncBatchNorm):
    """torch's, which knows GPUs alone, and the same by gathered means and variances on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) of this process, each process with a batch of its own."""
        if not self.training or world_size() == 1 or x.device.type != "cpu":
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.numel() / x.shape[1]
        own = torch.stack([x.mean(axes), x.var(axes, unbiased=False), x.new_full(x.shape[1:2], count)])
        means, variances, counts = all_gather(own[None]).unbind(1)  # (R, C) each
        shares = counts / counts.sum(0)
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        with torch.no_grad():
            self._follow(mean, variance * (total := counts[:, 0].sum()) / (total - 1).clamp_min(1))
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scaled = (x - mean.view(shape)) * (variance.view(shape) + self.eps).rsqrt()
        return scaled if self.weight is None else scaled * self.weight.view(shape) + self.bias.view(shape)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics, with the variance of a sample, as torch keeps them."""
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


def synchronised(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm synchronised, where there are several processes; names and values of its
    tensors stay."""
    if world_size() == 1:
        return model
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.SyncBatchNorm:
            module.__class__ = SyncedBatchNorm
    return model
