"""What is done to a model that only predicts."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from torch import nn

from ddl_d2.modeling.test_time.folding import fold_norms


def test_by_hand():
    """Weight 3, norm (x - 1) / sqrt(4) * 10 + 0.5: the convolution becomes 15 x - 4.5."""
    convolution = Conv2d(1, 1, 1, bias=False, norm=FrozenBatchNorm2d(1, eps=0.0)).eval()
    convolution.weight.data.fill_(3.0)
    convolution.norm.running_mean.fill_(1.0)
    convolution.norm.running_var.fill_(4.0)
    convolution.norm.weight.fill_(10.0)
    convolution.norm.bias.fill_(0.5)
    x = torch.tensor([[[[2.0, -1.0]]]])
    assert convolution(x).flatten().tolist() == [25.5, -19.5]
    fold_norms(convolution)
    assert convolution.norm is None
    assert convolution.weight.item() == 15.0
    assert convolution.bias.item() == -4.5
    assert convolution(x).flatten().tolist() == [25.5, -19.5]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("bias", [False, True])
def test_nothing_else_changes(norm, bias):
    torch.manual_seed(0)
    network = nn.Sequential(
        Conv2d(3, 8, 3, stride=2, padding=1, bias=bias, norm=get_norm(norm, 8), activation=torch.relu),
        Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=bias, norm=get_norm(norm, 8)),
        Conv2d(8, 64, 1, norm=get_norm("GN", 64)),  # its statistics are those of the image
        nn.Conv2d(64, 4, 1),
        nn.BatchNorm2d(4),  # what runs before it is not known
    ).eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for values, low in ((module.running_var, 0.5), (module.running_mean, -1), (module.weight, 0.2)):
                values.data.uniform_(low, 2.0)
    x = torch.randn(2, 3, 17, 23)
    with torch.no_grad():
        expected = network(x)
        fold_norms(network)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    assert [layer.norm is None for layer in network[:3]] == [True, True, False]
    assert isinstance(network[4], nn.BatchNorm2d)
