"""Networks of PyTorch: what comes out, and Jacobians, against PyTorch itself."""

import subprocess
import sys

import numpy as np
import pytest

from convmat.networks._torch import from_torch

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
# jacrev says of some operations that it takes their derivatives one by one.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


class Snippet(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def as_module(make):
    """Return a module in double precision, with weights that are not trivial."""
    torch.manual_seed(0)
    module = make() if isinstance(make, type) or make.__name__ == "make" else Snippet(make)
    generator = torch.Generator().manual_seed(1)
    for name, each in module.named_buffers():
        if each.is_floating_point():
            each.copy_(torch.rand(each.shape, generator=generator) + (0.5 if "var" in name else 0.0))
    for each in module.parameters():
        if each.ndim == 1:
            each.data.copy_(torch.rand(each.shape, generator=generator) + 0.1)
    return module.double().eval()


def of(kind, *args, **options):
    def make():
        return kind(*args, **options)

    return make


def batch_of(shape, kinks, count=3):
    rng = np.random.default_rng(3)
    if kinks:
        return rng.integers(-4, 5, (count, *shape)).astype(float)
    return rng.standard_normal((count, *shape)) * 1.5


def check(module, shape, kinks=False, positive=False, tolerance=1e-11):
    """Compare outputs and the Jacobian with PyTorch's; return the network."""
    net = from_torch(module, shape, dtype=None if [*module.parameters()] else "float64")
    assert net.dtype == np.float64
    assert net.input_shape == shape
    batch = batch_of(shape, kinks)
    if positive:
        batch = abs(batch) + 0.25
    with torch.no_grad():  # one by one: some modules take no batch
        wanted = np.stack([module(torch.from_numpy(x[None])).numpy() for x in batch])
    assert wanted.size == len(batch) * np.prod(net.output_shape)
    wanted = wanted.reshape(len(batch), *net.output_shape)
    found = net(batch)
    assert found.dtype == np.float64
    assert_near(found, wanted, 1e-11)
    assert_near(net.astype(np.float32)(batch.astype(np.float32)), wanted, 2e-5)
    for x in batch[:2]:
        jacobian = torch.func.jacrev(lambda x: module(x[None]).reshape(-1))(torch.from_numpy(x))
        jacobian = jacobian.reshape(-1, x.size).detach().numpy()
        matrix = net.at(x).matrix.tocsr()
        assert_near(matrix.toarray(), jacobian, tolerance)
    return net


def assert_near(found, wanted, tolerance):
    assert found.shape == wanted.shape
    assert abs(found - wanted).max(initial=0) <= tolerance * max(1, abs(wanted).max(initial=0))


C2, S2 = nn.Conv2d, (2, 6, 5)
CONVOLUTIONS = {
    **{
        f"mode_{mode}_{count}d": (of(kind, 2, 3, 3, padding=1, padding_mode=mode), (2, 6, 5, 4)[: count + 1])
        for mode in ("zeros", "reflect", "replicate", "circular")
        for count, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)
        if not (mode == "reflect" and count == 3)
    },
    "reflect_3d": (of(nn.ReflectionPad3d, (1, 2, 1, 0, 2, 1)), (1, 4, 3, 3)),
    "same": (of(C2, 2, 3, (4, 3), padding="same", dilation=(1, 2)), S2),
    "same_circular": (of(C2, 2, 3, (4, 3), padding="same", padding_mode="circular"), S2),
    "valid": (of(C2, 2, 3, 3, padding="valid", bias=False), S2),
    "all": (of(C2, 4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2), (4, 6, 5)),
    "depthwise": (of(C2, 3, 6, 3, groups=3), (3, 5, 5)),
    "unbatched": (lambda x: F.conv2d(x[0], torch.ones(3, 2, 2, 2, dtype=x.dtype))[None], S2),
    "functional": (lambda x: F.conv1d(x, torch.arange(12.0, dtype=x.dtype).view(3, 2, 2), stride=2), (2, 7)),
    "convolution": (
        lambda x: torch.convolution(
            x, torch.ones(2, 3, 3, 3, dtype=x.dtype), None, [2, 2], [1, 1], [1, 1], True, [1, 0], 1
        ),
        S2,
    ),
    **{
        f"transposed_{count}d": (
            of(kind, 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            (4, 4, 3, 2)[: count + 1],
        )
        for count, kind in enumerate((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), 1)
    },
    "transposed": (of(nn.ConvTranspose2d, 2, 3, (3, 2), stride=(2, 1), dilation=(1, 2), bias=False), S2),
    "output_padding": (of(nn.ConvTranspose2d, 2, 3, 3, stride=3, padding=1, output_padding=2), (2, 3, 3)),
    "output_padding_dilated": (of(nn.ConvTranspose2d, 2, 3, 2, stride=1, dilation=3, output_padding=(2, 1)), (2, 3, 3)),
    "fold": (of(nn.Fold, (5, 4), (3, 2), padding=1, stride=2, dilation=1), (12, 9)),
    "fold_dilated": (of(nn.Fold, (5, 6), 2, dilation=2), (8, 12)),
    "weight_norm": (of(lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))), S2),
}
PRODUCTS = {
    "linear": (of(nn.Linear, 5, 3), S2),
    "linear_flat": (of(nn.Linear, 5, 3, bias=False), (5,)),
    "matmul_right": (lambda x: x @ torch.arange(15.0, dtype=x.dtype).view(5, 3), S2),
    "matmul_left": (lambda x: torch.arange(18.0, dtype=x.dtype).view(3, 6) @ x, S2),
    "matmul_vector": (lambda x: x @ torch.arange(5.0, dtype=x.dtype), S2),
    "vector_matmul": (lambda x: torch.arange(6.0, dtype=x.dtype) @ x, S2),
    "matmul_batched": (lambda x: x @ torch.arange(40.0, dtype=x.dtype).view(2, 5, 4), S2),
    "batched_matmul": (lambda x: torch.arange(36.0, dtype=x.dtype).view(2, 3, 6) @ x, S2),
    "matmul_wide": (lambda x: x @ torch.arange(90.0, dtype=x.dtype).view(3, 2, 5, 3), S2),
    "matmul_ones": (lambda x: x[0, 0] @ torch.ones(1, 1, 5, 2, dtype=x.dtype), S2),
    "mv": (lambda x: torch.mv(torch.arange(15.0, dtype=x.dtype).view(3, 5), x[0]), (5,)),
    "vector_first": (lambda x: x[0] @ torch.arange(30.0, dtype=x.dtype).view(2, 5, 3), (5,)),
    "dot": (lambda x: torch.dot(x[0], torch.arange(5.0, dtype=x.dtype)), (5,)),
    "matrix_vector": (lambda x: torch.arange(30.0, dtype=x.dtype).view(2, 3, 5) @ x[0], (5,)),
    "mm": (lambda x: torch.mm(x[0], torch.ones(5, 2, dtype=x.dtype)), (4, 5)),
    "bmm": (lambda x: torch.bmm(x, torch.arange(10.0, dtype=x.dtype).view(1, 5, 2)), (4, 5)),
    "addmm": (
        lambda x: torch.addmm(torch.arange(2.0, dtype=x.dtype), x[0], torch.ones(5, 2, dtype=x.dtype), beta=2, alpha=3),
        (4, 5),
    ),
    "einsum": (lambda x: torch.einsum("bchw,wkc->bhk", x, torch.arange(30.0, dtype=x.dtype).view(5, 3, 2)), S2),
    "bilinear_shapes": (lambda x: F.linear(x.flatten(2), torch.ones(2, 30, dtype=x.dtype)), S2),
    "baddbmm": (
        lambda x: torch.baddbmm(x, x[:, :, :3], torch.arange(15.0, dtype=x.dtype).view(1, 3, 5), beta=0.5, alpha=2),
        (4, 5),
    ),
}
POOLS = {
    "avg_1d": (of(nn.AvgPool1d, 3, 2, 1), (2, 7)),
    "avg_ceil": (of(nn.AvgPool2d, 3, 2, 1, ceil_mode=True), (2, 6, 7)),
    "avg_ceil_inside": (of(nn.AvgPool2d, (3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False), (2, 6, 7)),
    "avg_divisor": (of(nn.AvgPool2d, 3, 2, 1, divisor_override=5), (2, 6, 7)),
    "avg_divisor_ceil": (of(nn.AvgPool2d, 3, 2, 1, ceil_mode=True, divisor_override=5), (2, 6, 7)),
    "avg_3d": (of(nn.AvgPool3d, (2, 3, 2), stride=(1, 2, 2)), (1, 3, 5, 4)),
    "adaptive_1d": (of(nn.AdaptiveAvgPool1d, 3), (2, 7)),
    "adaptive_2d": (of(nn.AdaptiveAvgPool2d, (4, None)), (2, 6, 7)),
    "adaptive_global": (of(nn.AdaptiveAvgPool2d, 1), (2, 6, 7)),
    "adaptive_3d": (of(nn.AdaptiveAvgPool3d, 2), (1, 3, 5, 4)),
    "area": (lambda x: F.interpolate(x, size=(4, 3), mode="area"), S2),
    "unbatched": (lambda x: F.avg_pool2d(x[0], 2)[None], S2),
    "mean": (lambda x: x.mean((2, 3)), S2),
    "mean_kept": (lambda x: x.mean(-1, keepdim=True), S2),
    "mean_all": (lambda x: x.mean(), S2),
    "sum": (lambda x: x.sum(1), S2),
    "sum_all": (lambda x: x.sum(), S2),
    "cumsum": (lambda x: x.cumsum(2), S2),
    "lp": (of(nn.AvgPool2d, 2, 2), S2),
}
RESIZES = {
    "nearest_1d": (of(nn.Upsample, scale_factor=1.7), (2, 7)),
    "nearest_2d": (of(nn.Upsample, size=(9, 4)), S2),
    "nearest_3d": (of(nn.Upsample, scale_factor=2), (1, 2, 3, 2)),
    "exact": (lambda x: F.interpolate(x, scale_factor=(1.4, 0.6), mode="nearest-exact"), S2),
    "linear": (of(nn.Upsample, scale_factor=2.3, mode="linear"), (2, 7)),
    "bilinear": (of(nn.Upsample, scale_factor=(2, 1.5), mode="bilinear"), S2),
    "bilinear_aligned": (of(nn.Upsample, size=(9, 3), mode="bilinear", align_corners=True), S2),
    "recomputed": (lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True), S2),
    "trilinear": (of(nn.Upsample, scale_factor=(2, 1.5, 1), mode="trilinear"), (1, 2, 3, 2)),
    "bicubic": (of(nn.Upsample, size=(9, 4), mode="bicubic"), S2),
    "bicubic_aligned": (of(nn.Upsample, scale_factor=2, mode="bicubic", align_corners=True), S2),
    "antialias": (lambda x: F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True), S2),
    "bicubic_antialias": (lambda x: F.interpolate(x, size=(3, 7), mode="bicubic", antialias=True), S2),
    "raw": (lambda x: torch.ops.aten.upsample_bilinear2d(x, [8, 9], False, None, 1.5), S2),
}


def written(x):
    y = x.clone()
    y[:, 0, 1:3] = x[:, 1, 2:4] * 2
    y[:, 1, 0, 0] = 7
    y[:, :, :, 4] += 1
    return y


def flagged(x):
    y = torch.zeros_like(x)
    y[:, :, ::2] = x[:, :, 1::2]
    y[:, [1, 0]] = y.clone()
    return y


MOVES = {
    "view": lambda x: x.view(1, 3, -1),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 3)),
    "permute": lambda x: x.permute(0, 3, 1, 2).contiguous(),
    "transposed_view": lambda x: x.transpose(2, 3).reshape(1, -1),
    "movedim": lambda x: x.movedim(1, 3).squeeze(0)[None].swapaxes(1, 2),
    "t": lambda x: x[0, 0].t()[None],
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(-1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "expand_as": lambda x: x.mean(2, keepdim=True).expand_as(x),
    "slice": lambda x: x[..., None, ::2, 1:-1],
    "select": lambda x: x[:, 1],
    "narrow": lambda x: x.narrow(2, 1, 3),
    "split": lambda x: torch.cat(x.split(2, 2)[::-1], 1),
    "split_sizes": lambda x: x.split([1, 5], 2)[1],
    "chunk": lambda x: x.chunk(2, 1)[1] - x.chunk(2, 1)[0],
    "tensor_split": lambda x: x.tensor_split(4, 2)[1],
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 3),
    "cat_constant": lambda x: torch.cat([x, torch.ones(1, 1, 6, 5, dtype=x.dtype), x], 1),
    "hstack": lambda x: torch.hstack([x, torch.vstack([x])]),
    "repeat": lambda x: x.repeat(1, 2, 1, 2),
    "tile": lambda x: x.tile(2, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "flip": lambda x: x.flip(2, 3).fliplr(),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "index_select": lambda x: x.index_select(2, torch.tensor([4, 0, 0])),
    "index": lambda x: x[:, [1, 0, 1], 2:],
    "index_two": lambda x: x[:, :, torch.tensor([[0, 1], [2, 5]]), torch.tensor([1, 4])],
    "index_mask": lambda x: x[:, :, torch.arange(6) % 2 == 0],
    "gather": lambda x: x.gather(2, torch.tensor([[[[0, 1, 2, 3, 5]], [[5, 4, 3, 2, 1]]]])),
    "take_along_dim": lambda x: x.take_along_dim(torch.tensor([[[[5], [0]]]]), 2),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=3.0),
    "pad_negative": lambda x: F.pad(x, (-1, 2, 1, -2)),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "reflect_1d": lambda x: F.pad(x[:, 0], (1, 2), mode="reflect"),
    "replicate_3d": lambda x: F.pad(x[None], (1, 2, 3, 0, 1, 1), mode="replicate")[0],
    "circular": lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[..., :4], 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x + 1], 1), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(torch.cat([x, -x], 1), 2),
    "unfold": lambda x: F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2),
    "windows": lambda x: x.unfold(2, 3, 2),
    "as_strided": lambda x: x.as_strided((1, 2, 3), (60, 7, 3), 1),
    "diagonal": lambda x: x.diagonal(1, 2, 3),
    "triu": lambda x: x.triu(1) + x.tril(-2),
    "where": lambda x: torch.where(torch.eye(6, 5) > 0, x, 2.0),
    "where_two": lambda x: torch.where(torch.eye(6, 5) > 0, x, x.flip(1)),
    "masked_fill": lambda x: x.masked_fill(torch.eye(6, 5) > 0, 3.0),
    "masked_select": lambda x: x.masked_select(torch.eye(6, 5) > 0)[None],
    "written": written,
    "flagged": flagged,
    "scatter": lambda x: x.scatter(2, torch.tensor([[[[0, 1, 2, 3, 5]], [[5, 4, 3, 2, 1]]]]), x[:, :, :1] * 2),
    "scatter_value": lambda x: x.scatter(3, torch.tensor([[[[1]], [[2]]]]), 5.0),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([0, 3]), x[:, :, 1:3]),
    "index_fill": lambda x: x.index_fill(2, torch.tensor([0, 3]), 4.0),
    "select_scatter": lambda x: x.select_scatter(x[:, :, 0], 2, 1).slice_scatter(x[:, 1:], 1, 0, 1),
    "copied": lambda x: torch.empty_like(x).copy_(x[:, :1]),
    "fill_diagonal": lambda x: x.diagonal_scatter(x[..., 0, :], 0, 2, 3),
    "identity": lambda x: x.clone()[:],
    "cast": lambda x: x.to(torch.float64).contiguous(),
    "constant": lambda x: torch.arange(6.0, dtype=x.dtype).view(1, 2, 3) + torch.zeros_like(x).sum(),
    "untouched": lambda x: x,
}
ARITHMETIC = {
    "add": lambda x: x + torch.arange(5, dtype=x.dtype) * 0.5,
    "add_alpha": lambda x: torch.add(x, x.flip(1), alpha=2.5),
    "add_broadcast": lambda x: x + x.mean(1, keepdim=True),
    "add_same": lambda x: (x + x) * 2,
    "sub": lambda x: torch.sub(torch.ones(5, dtype=x.dtype), x, alpha=2),
    "sub_two": lambda x: x - x.flip(2),
    "rsub": lambda x: torch.rsub(x, 3.0, alpha=2) + (1 - x),
    "mul": lambda x: x * torch.arange(6, dtype=x.dtype).view(6, 1) * 2,
    "mul_two": lambda x: x * x.flip(2) * x,
    "mul_same": lambda x: x * x,
    "mul_broadcast": lambda x: x * x.mean((2, 3), keepdim=True),
    "div": lambda x: x / torch.arange(1, 6, dtype=x.dtype) / 3,
    "div_two": lambda x: x / (x.flip(1).abs() + 1),
    "div_under": lambda x: 2 / (x.exp() + 1),
    "neg": lambda x: -x,
    "addcmul": lambda x: torch.addcmul(x, x, x.flip(1), value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x.flip(1), x.exp(), value=0.5),
    "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "pow": lambda x: x**3 + x.square() - x**1,
    "pow_base": lambda x: 2.0**x,
    "pow_tensor": lambda x: torch.pow(x, torch.full((5,), 2.0, dtype=x.dtype)),
    "var": lambda x: x.var((2, 3)),
    "std": lambda x: (x - x.mean()) / x.std(correction=0),
    "norm": lambda x: F.normalize(x, dim=1),
    "norm_1": lambda x: x.norm(1, dim=3),
    "scalars": lambda x: x.add(1).mul(2).sub(0.5).div(4),
    "inplace": lambda x: x.clone().add_(1).mul_(2).relu_(),
    "sizes": lambda x: x.view(x.shape[0], x.size(1), -1) / x.numel(),
    "random_shape": lambda x: x + torch.full_like(x, 2) - torch.zeros(x.shape, dtype=x.dtype),
}
FUNCTIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-2, 3),
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp_min": lambda x: x.clamp_min(1),
    "clamp_max": lambda x: x.clamp(max=1),
    "clamp_array": lambda x: torch.clamp(x, torch.arange(-2.0, 3, dtype=x.dtype), torch.ones(6, 1, dtype=x.dtype)),
    "leaky_relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(init=0.3),
    "prelu_channels": nn.PReLU(2),
    "rrelu": nn.RReLU(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
    "threshold": nn.Threshold(1.0, 3.0),
    "hardshrink": nn.Hardshrink(1.0),
    "softshrink": nn.Softshrink(1.0),
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "minimum": lambda x: torch.minimum(x, x.flip(2)),
    "maximum_constant": lambda x: torch.maximum(torch.zeros(1, dtype=x.dtype), x),
    "max_other": lambda x: torch.max(x, x[:, :, :1]),
    "max_dim": lambda x: x.max(1)[0],
    "max_values": lambda x: x.max(2, keepdim=True).values,
    "min_dim": lambda x: x.min(2).values,
    "maxpool_1d": lambda x: F.max_pool1d(x[:, 0], 3, 2, 1),
    "maxpool_2d": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "maxpool_dilated": nn.MaxPool2d((2, 3), 1, (1, 0), dilation=(2, 1)),
    "maxpool_3d": lambda x: F.max_pool3d(x, 2, 1),
    "maxpool_indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, (3, 1)),
    "adaptive_max_1d": lambda x: F.adaptive_max_pool1d(x[:, 0].mT, 3),
    "where": lambda x: torch.where(x > 1, x, 0.5 * x),
    "where_number": lambda x: torch.where(x.abs() <= 2, x * x, torch.zeros(5, dtype=x.dtype)),
    "where_between": lambda x: torch.where((x >= -1) & (x < 2) | ~(x != 3), x, x.flip(2)),
    "where_pair": lambda x: torch.where(x.lt(x.flip(2)), x, -x[:, :1]),
    "masked_fill": lambda x: x.masked_fill(x == 2, 7.0).masked_fill((x > 1).logical_not(), -1),
    "gated": lambda x: x * (x > 0) + x.sign() * (x < 2).to(x.dtype) + torch.where(x.bool(), 2.0 * x, 1),
    "hardshrink_written": lambda x: F.hardshrink(x.clone().add_(1), 1.0),
    "rrelu_written": lambda x: F.rrelu(x.clone().add_(1)),
    "sigmoid": nn.Sigmoid(),
    "log_sigmoid": nn.LogSigmoid(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "elu": nn.ELU(0.7),
    "celu": nn.CELU(0.5),
    "selu": nn.SELU(),
    "softplus": nn.Softplus(2, 3),
    "mish": nn.Mish(),
    "softsign": nn.Softsign(),
    "glu": nn.GLU(1),
    "exp": torch.exp,
    "expm1": torch.expm1,
    "erf": torch.erf,
    "softmax": nn.Softmax(1),
    "softmax_2d": nn.Softmax2d(),
    "log_softmax": nn.LogSoftmax(2),
    "dropout": nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.Identity(), nn.ReLU()),
}
POSITIVE = {
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "pow": lambda x: x**-0.75,
    "pow_negative": lambda x: x**-2,
    "root": lambda x: x**0.5,
}
NORMS = {
    "batch_1d": (of(nn.BatchNorm1d, 4), (4,)),
    "batch_2d": (of(nn.BatchNorm2d, 2, affine=False, eps=0.1), S2),
    "batch_3d": (of(nn.BatchNorm3d, 2), (2, 2, 3, 2)),
    "instance": (of(nn.InstanceNorm2d, 2), S2),
    "instance_affine": (of(nn.InstanceNorm1d, 2, affine=True), (2, 6)),
    "instance_tracked": (of(nn.InstanceNorm2d, 2, affine=True, track_running_stats=True), S2),
    "layer": (of(nn.LayerNorm, (6, 5)), S2),
    "layer_plain": (of(nn.LayerNorm, 5, elementwise_affine=False), S2),
    "layer_biasless": (of(nn.LayerNorm, 5, bias=False), S2),
    "native_layer": (lambda x: torch.native_layer_norm(x, [5], None, None, 1e-3)[0], S2),
    "group": (of(nn.GroupNorm, 2, 4), (4, 3, 3)),
    "group_1d": (of(nn.GroupNorm, 2, 4, affine=False), (4, 3)),
    "native_group": (lambda x: torch.native_group_norm(x, None, None, 1, 2, 30, 1, 1e-3)[0], S2),
    "rms": (of(nn.RMSNorm, 5), S2),
    "local_response": (of(nn.LocalResponseNorm, 2, alpha=0.5), (4, 3, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    make, shape = CONVOLUTIONS[name]
    assert check(as_module(make), shape).is_affine


OF_BOTH = {
    "matmul_both": (lambda x: x @ x.mT, (2, 4, 5)),
    "matmul_rows": (lambda x: x[:, 0, 0] @ x[:, 1].mT, (2, 3, 4)),
    "einsum_both": (lambda x: torch.einsum("bi,bj->bij", x[:, 0], x[:, 1]), (2, 4)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x[:, :1], 2 * x[:, :1], scale=0.3), (2, 5, 4)),
    "attention_causal": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), (2, 5, 4)),
    "attention_masked": (
        lambda x: F.scaled_dot_product_attention(
            x, x, x, torch.tensor([[True, False, True], [True, True, False]] * 2)[:3]
        ),
        (3, 4),
    ),
    "attention_biased": (
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(3, 3).tril().to(x.dtype)),
        (3, 4),
    ),
    "attention_of_constants": (
        lambda x: F.scaled_dot_product_attention(
            torch.ones(2, 4, dtype=x.dtype), torch.arange(12.0, dtype=x.dtype).view(3, 4), x
        ),
        (3, 4),
    ),
    "transformer": (of(nn.TransformerEncoderLayer, 8, 2, 16, activation="gelu", batch_first=True), (5, 8)),
}


@pytest.mark.parametrize("name", OF_BOTH)
def test_products_of_what_depends_on_the_input(name):
    make, shape = OF_BOTH[name]
    check(as_module(make), shape)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    make, shape = PRODUCTS[name]
    assert check(as_module(make), shape).is_affine


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    make, shape = POOLS[name]
    assert check(as_module(make), shape).is_affine


@pytest.mark.parametrize("name", RESIZES)
def test_resizes(name):
    make, shape = RESIZES[name]
    assert check(as_module(make), shape).is_affine


@pytest.mark.parametrize("name", MOVES)
def test_moves(name):
    net = check(as_module(MOVES[name]), S2)
    assert net.is_affine
    assert (len(net.stages) == 0) == (name in ("identity", "cast", "untouched"))


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name):
    check(as_module(ARITHMETIC[name]), S2)


@pytest.mark.parametrize("kinks", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, kinks):
    function = FUNCTIONS[name]
    module = function.double().eval() if isinstance(function, nn.Module) else as_module(function)
    # PyTorch 2.13 takes 1/6 in single precision there.
    tolerance = 1e-8 if name == "hardsigmoid" else 1e-11
    assert not check(module, S2, kinks, tolerance=tolerance).is_affine


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name):
    check(as_module(POSITIVE[name]), S2, positive=True)


@pytest.mark.parametrize("name", NORMS)
def test_norms(name):
    make, shape = NORMS[name]
    check(as_module(make), shape)


class Residual(nn.Module):
    """Two convolutions, and a skip that has one of its own."""

    def __init__(self, stride=2):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, stride, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
        self.skip = nn.Sequential(nn.Conv2d(2, 4, 1, stride, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.second(self.first(x))
        y += self.skip(x)
        return self.relu(y)


class UNet(nn.Module):
    """A small one, whose skip is concatenated."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")
        self.deep = nn.Conv2d(3, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.out = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = F.leaky_relu(self.down(x), 0.1)
        y = F.relu(self.deep(F.max_pool2d(x, 2)))
        y = self.up(y)
        y = F.pad(y, [0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]])
        return torch.sigmoid(self.out(torch.cat([x, y], dim=1)))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels):
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Linear(channels, 2), nn.ReLU())
        self.back = nn.Linear(2, channels)

    def forward(self, x):
        y = self.pool(x).view(x.shape[0], -1)
        return x * F.hardsigmoid(self.back(self.gate(y))).view(x.shape[0], -1, 1, 1)


class Inverted(nn.Module):
    """An inverted residual of MobileNet 3."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6), nn.Hardswish(inplace=True)),
            *(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6), nn.Hardswish(inplace=True)),
            *(Squeeze(6), nn.Conv2d(6, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Dropout()),
        )

    def forward(self, x):
        return x + self.layers(x)


class Recurrent(nn.Module):
    """A recurrent network, unrolled."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(5, 3, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


class Quiet(nn.Module):
    """A module with loops, and a part without gradients."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(2, 2, 3, padding=1) for _ in range(3)])
        self.register_buffer("scale", torch.tensor([2.0, 3.0]), persistent=False)
        self.shared = nn.ReLU()

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = self.shared(layer(x)) + number
        with torch.no_grad():
            scale = self.scale.view(-1, 1) * 2
        return x * scale


BLOCKS = {
    "residual": (of(Residual), S2),
    "unet": (of(UNet), (2, 7, 6)),
    "squeeze": (of(Squeeze, 2), S2),
    "inverted": (of(Inverted), S2),
    "loop": (of(Quiet), (2, 6)),
    "shuffle": (of(lambda: nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(2))), S2),
    "instance": (of(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3), nn.LeakyReLU(0.2))), S2),
    "lstm": (of(Recurrent), (4, 5)),
    "mixer": (of(lambda: nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))), S2),
    "sequence": (of(lambda: nn.GRUCell(5, 3)), (5,)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    make, shape = BLOCKS[name]
    # PyTorch 2.13 takes 1/6 of hardsigmoid in single precision.
    check(as_module(make), shape, tolerance=1e-8 if name in ("squeeze", "inverted") else 1e-11)


@pytest.mark.parametrize("name", BLOCKS)
def test_both_ways_of_exporting_make_the_same_network(name, monkeypatch):
    make, shape = BLOCKS[name]
    module = as_module(make)
    whole = from_torch(module, shape)
    monkeypatch.setattr("convmat.networks._torch_reader.is_readable", lambda program: False)
    pieces = from_torch(module, shape)
    x = batch_of(shape, False)
    assert_near(pieces(x), whole(x), 1e-13)
    assert_near(pieces.at(x[0]).matrix.tocsr().toarray(), whole.at(x[0]).matrix.tocsr().toarray(), 1e-13)


def test_a_network_in_single_precision():
    module = as_module(of(UNet)).float()
    net = from_torch(module, (2, 8, 8))
    assert net.dtype == np.float32
    x = np.random.default_rng(0).standard_normal((4, 2, 8, 8)).astype(np.float32)
    found = net(x)
    assert found.dtype == np.float32
    with torch.no_grad():
        assert_near(found, module(torch.from_numpy(x)).numpy(), 2e-5)
        wanted = module.double()(torch.from_numpy(x).double()).numpy()
    assert_near(from_torch(module.float(), (2, 8, 8), dtype="float64")(x.astype(float)), wanted, 1e-11)
    assert from_torch(module.half(), (2, 8, 8)).dtype == np.float32


def test_constants_are_computed_in_double_precision():
    module = Snippet(lambda x: x @ torch.linspace(0, 1, 30).view(5, 6).mm(torch.full((6, 2), 0.1)))
    x = np.random.default_rng(0).standard_normal((3, 5))
    wanted = x @ (np.linspace(0, 1, 30).reshape(5, 6) @ np.full((6, 2), 0.1))
    program = torch.export.export(module, (torch.zeros(1, 5),), strict=False)
    for each in (module, program):
        single = from_torch(each, (5,))
        assert single.dtype == np.float32
        assert_near(single(x), wanted.astype(np.float32), 2e-6)
    assert_near(from_torch(program, (5,), dtype="float64")(x), wanted, 1e-14)


def test_nearest_numbers_are_those_of_the_modules_precision():
    """Which number is nearest depends on how a scale is rounded."""
    rows = 58
    for scale in (1.1, 1.3, 10 / 3, 0.35):
        module = nn.Upsample(scale_factor=scale)
        x = np.arange(rows, dtype=np.float32).reshape(1, rows)
        for dtype in ("float32", "float64"):
            wanted = module(torch.from_numpy(x.astype(dtype))[None])[0].numpy()
            np.testing.assert_array_equal(from_torch(module, x.shape, dtype=dtype)(x), wanted)


def test_stages_have_the_names_of_modules():
    names = [stage.name for stage in from_torch(as_module(of(UNet)), (2, 8, 8)).stages]
    assert {"down/conv2d", "deep", "up", "out"} <= set(names)
    assert len(set(names)) == len(names)


def test_ops_are_called_as_in_onnx():
    net = from_torch(as_module(of(Residual)), (2, 6, 6))
    ops = [stage.op for stage in net.stages]
    assert ops == [
        *("Conv", "BatchNormalization", "Relu", "Conv", "BatchNormalization"),
        *("Conv", "BatchNormalization", "Add", "Relu"),
    ]


def test_the_module_stays_as_it_is():
    module = as_module(of(Inverted)).float()
    module.train()
    module.layers[1].eval()
    before = [each.training for each in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    net = from_torch(module, S2)
    assert [each.training for each in module.modules()] == before
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    x = np.random.default_rng(0).standard_normal(S2).astype(np.float32)
    with torch.no_grad():
        assert_near(net(x), module.eval()(torch.from_numpy(x)[None])[0].numpy(), 2e-5)


def test_flags_come_back_after_an_error():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout()).train()
    with pytest.raises(ValueError, match=r"torch\.export can trace"):
        from_torch(module, S2)
    assert module[0].training


def test_exported_programs():
    module = as_module(of(Residual))
    program = torch.export.export(module, (torch.zeros(1, 2, 6, 5, dtype=torch.float64),), strict=False)
    x = batch_of(S2, False)
    wanted = from_torch(module, S2)(x)
    assert_near(from_torch(program, S2)(x), wanted, 0)
    with pytest.raises(ValueError, match=r"input_shape must be \(2, 6, 5\), .*got \(2, 6, 6\)"):
        from_torch(program, (2, 6, 6))
    batch = {"x": {0: torch.export.Dim("batch")}}
    example = torch.zeros(3, 2, 6, 5, dtype=torch.float64)
    program = torch.export.export(module, (example,), dynamic_shapes=batch, strict=False)
    assert_near(from_torch(program, S2)(x), wanted, 0)


OUTPUTS = {
    "tuple": (lambda x: (x, x + 1), 1, 2),
    "last": (lambda x: (x, x + 1), -1, 2),
    "list": (lambda x: [x, [x + 1, x * 2]], 0, 3),
    "dict": (lambda x: {"low": x, "high": x + 1}, "high", 2),
    "dict_by_number": (lambda x: {"low": x, "high": x + 1}, 1, 2),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name):
    function, output, count = OUTPUTS[name]
    module = Snippet(function)
    x = np.ones((2, 3), np.float32)
    expected = x if name == "list" else x + 1
    np.testing.assert_array_equal(from_torch(module, (3,), output=output)(x), expected)
    with pytest.raises(ValueError, match=f"module must return one array, got {count}; choose one by output"):
        from_torch(module, (3,))
    with pytest.raises(ValueError, match=f"output must be one of the module's {count}.*, got 'none'"):
        from_torch(module, (3,), output="none")
    with pytest.raises(ValueError, match=r"output must be one of .*, got 7"):
        from_torch(module, (3,), output=7)


def test_stages_that_an_output_does_not_need_are_left_out():
    module = Snippet(lambda x: (x.exp(), x * 2, x.exp() + x * 3))
    assert [len(from_torch(module, (3,), output=number).stages) for number in range(3)] == [1, 1, 3]
    assert from_torch(module, (3,), output=1).is_affine


def test_bounds_of_choices():
    net = from_torch(Snippet(lambda x: torch.where(x > 0, x + 5, 2 * x)), (3,), dtype="float64")
    low, high = np.array([-3.0, 1, -1]), np.array([-1.0, 2, 1])
    bounds = net.bounds(low, high)
    np.testing.assert_allclose(bounds, [[-6, 6, -2], [-2, 7, 6]], rtol=1e-12)


def test_one_output_needs_no_choice():
    assert from_torch(Snippet(lambda x: {"out": x * 2}), (3,)).output_shape == (3,)
    assert from_torch(Snippet(lambda x: (x * 2,)), (3,), output=0).output_shape == (3,)
    with pytest.raises(ValueError, match="output must be one of the module's 1, got 1"):
        from_torch(Snippet(lambda x: x * 2), (3,), output=1)


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


REFUSED = {
    "two_inputs": (Two(), "must take one array, got one that takes 2: x, y"),
    "unknown": (lambda x: x.argsort(), r"operations that from_torch knows, got aten.*sort.*node .*test_torch.py, line"),
    "kernel": (lambda x: F.conv2d(x, x), "conv2d must have a constant 'weight', got one that depends on the input"),
    "flow": (
        lambda x: x if x.sum() > 0 else -x,
        "the values of its input are, got control flow: .*x.sum.*py, line",
    ),
    "shape": (
        lambda x: x.view(7, 7),
        r"can trace for an input of shape \(1, 2, 6, 5\), got: shape '\[7, 7\]' is invalid",
    ),
    "random": (lambda x: x + torch.rand(5), "the same each time, got aten.rand.default, which is random"),
    "index": (
        lambda x: x[..., x[0, 0, 0] > 0],
        "index must have a constant 'indices', got one that depends on the input",
    ),
    "gather": (lambda x: x.gather(1, x.long()), "must stay real, got a cast to torch.int64"),
    "rounding": (lambda x: x.div(2, rounding_mode="floor"), "div must not round, got rounding mode 'floor'"),
    "accumulate": (lambda x: x.scatter_add(1, torch.zeros(1, 2, 6, 5, dtype=torch.long), x), "scatter_add"),
    "exponent": (lambda x: x ** torch.arange(5.0), "one exponent for all numbers, got 5"),
    "exponents": (lambda x: x**x, "must have a constant exponent|depends on the input"),
    "statistics": (nn.BatchNorm2d(2, track_running_stats=False), "statistics that it has learned"),
    "windows": (nn.AdaptiveMaxPool2d((4, 5)), "windows of one size, got 4 for 6 numbers"),
    "largest": (lambda x: x.max(), "along an axis, got one of all numbers"),
    "where": (lambda x: x.max(1)[1], "the results of an operation must be its first, got number 1"),
    "order": (lambda x: x.norm(3, dim=1), "must have order 1 or 2, got 3"),
    "complex": (lambda x: torch.fft.fft(x), "operations that from_torch knows, got aten._fft"),
    "bits": (lambda x: x.view(torch.int32).float(), "view must keep the dtype, got torch.int32"),
    "strided": (lambda x: x.mT.as_strided((1, 2), (1, 1)), "order of its axes"),
    "training": (lambda x: F.dropout(x, 0.5, training=True), "evaluation mode, got one that is training"),
    "slope": (lambda x: F.prelu(x, x.mean().view(1)), "a constant 'weight', got one that depends on the input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, capfd):
    given, message = REFUSED[name]
    module = given if isinstance(given, nn.Module) else Snippet(given)
    with pytest.raises(ValueError, match=message) as caught:
        from_torch(module, S2)
    assert "\n" not in str(caught.value)
    assert "def forward" not in capfd.readouterr().err


def test_the_place_of_an_operation_is_said():
    module = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ModuleDict({"a": nn.Identity()})["a"], Snippet(torch.argmax))
    with pytest.raises(ValueError, match=r"node 'argmax' of module '2' \(test_torch.py, line \d+\)"):
        from_torch(module, S2)


@pytest.mark.parametrize("given", [None, "model.pt", F.relu, {}])
def test_what_is_no_module(given):
    with pytest.raises(TypeError, match=r"module must be a torch.nn.Module or .*, got (NoneType|str|function|dict)"):
        from_torch(given, S2)


@pytest.mark.parametrize("shape", [3, "ab", (2, -1), (2.5,), None])
def test_shapes(shape):
    with pytest.raises(ValueError, match="input_shape must be a sequence of sizes without the batch axis, got"):
        from_torch(nn.ReLU(), shape)


def test_dtypes():
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got 'int32'"):
        from_torch(nn.Linear(3, 2), (3,), dtype="int32")
    with pytest.raises(ValueError, match="at most"):
        from_torch(nn.ReLU(), (1 << 40,))


def test_pytorch_is_imported_late():
    code = (
        "import sys, convmat.networks._torch as own; assert 'torch' not in sys.modules; sys.modules['torch'] = None\n"
        "try: own.from_torch(None, (3,))\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "from_torch needs PyTorch; pip install torch"
