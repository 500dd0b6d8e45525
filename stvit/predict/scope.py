"""Classifiers that also score whether a picture shows any of their classes, in the same pass."""

from __future__ import annotations

import copy

import torch
from torch import nn

from stvit.errors import UserError
from stvit.pretrained.scope import ScopeRow


class BadScopeRow(UserError):
    """A row that does not fit a classifier's last layer."""


def with_scope_row(network: nn.Module, row: ScopeRow) -> nn.Module:
    """Return a classifier whose last logit is the score of the row; all tensors but those of the last layer are shared
    with ``network``.

    Raises:
        BadScopeRow: the last layer is not a single linear one, or takes another number of features.
    """
    last = network.get_classifier()
    if not isinstance(last, nn.Linear) or last.in_features != len(row.weight):
        features = f"takes {last.in_features} features" if isinstance(last, nn.Linear) else "is not a linear one"
        problem = f"The scope row has {len(row.weight)} weights, but the last layer of the classifier {features}."
        raise BadScopeRow(problem, "Correct `scope` in the model card, or remove it.")
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    extended = copy.deepcopy(network, shared)
    name = next(name for name, module in extended.named_modules() if module is extended.get_classifier())
    extended.set_submodule(name, _with_row(last, row))
    return extended


def _with_row(last: nn.Linear, row: ScopeRow) -> nn.Linear:
    weight = torch.cat([last.weight.detach(), last.weight.new_tensor([row.weight])])
    bias = last.weight.new_zeros(last.out_features) if last.bias is None else last.bias.detach()
    extended = nn.Linear(last.in_features, last.out_features + 1, device="meta").requires_grad_(False)
    extended.weight = nn.Parameter(weight, requires_grad=False)
    extended.bias = nn.Parameter(torch.cat([bias, bias.new_tensor([row.bias])]), requires_grad=False)
    return extended
