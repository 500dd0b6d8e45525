"""Dense backbones that start from trained classifiers."""

import pytest
import timm
import torch
from torch.nn import functional as F

from stvit.models.dense_backbone import DenseBackbone, dense_backbone
from stvit.models.stvit_r_swin import STViTRSwin

SIZES = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8)}


def swin(**options) -> torch.nn.Module:
    return timm.create_model("swin_small_patch4_window7_224", **{**SIZES, **options}).eval()


def narrow(family: str) -> DenseBackbone:
    return dense_backbone(f"{family}_small", **SIZES).eval()


@pytest.mark.parametrize("options", [{}, {"pooling": "intra_inter", "global_centres": True}], ids=["released", "paper"])
def test_a_semantic_token_backbone_takes_all_but_norm_head_pooling_and_centres(options):
    classifier, backbone = STViTRSwin(**SIZES, **options), narrow("stvit_r_swin")
    new = backbone.init_from(classifier.state_dict())
    assert new and all(name.startswith("norms.") for name in new)
    given = classifier.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert name in new or torch.equal(tensor, given[name]), name


@torch.no_grad()
def test_a_full_token_backbone_computes_what_timms_swin_does():
    classifier, backbone = swin(), narrow("swin")
    backbone.init_from(classifier.state_dict())
    images = torch.randn(2, 3, 224, 224)
    maps = backbone(images)
    theirs = classifier.forward_intermediates(images, intermediates_only=True)
    for ours, their in zip(maps[:3], theirs[:3], strict=True):  # windows are shifted on a map of one window here
        normalised = F.layer_norm(their.permute(0, 2, 3, 1), their.shape[1:2])
        torch.testing.assert_close(ours.permute(0, 2, 3, 1), normalised, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (lambda: swin().state_dict(), "missing .*recovery"),
        (lambda: STViTRSwin(**{**SIZES, "depths": (1, 1, 12, 1)}).state_dict(), "unknown .*units.1"),
        (lambda: STViTRSwin(**{**SIZES, "embed_dim": 32}).state_dict(), "another shape .*stages"),
    ],
    ids=["another family", "deeper", "wider"],
)
def test_weights_of_another_classifier_are_refused_and_nothing_changes(classifier, message):
    backbone = narrow("stvit_r_swin")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        backbone.init_from(classifier())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["stvit_r_swin_small_cascade_mask_rcnn", "swin_small_upernet"])
def test_position_tables_of_dense_models_do_not_decay(name):
    model = timm.create_model(name, **SIZES)
    exempt = model.no_weight_decay()
    assert exempt and exempt <= {name for name, _ in model.named_parameters()}
    assert all(name.startswith("backbone.") for name in exempt)
