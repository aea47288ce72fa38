"""Training with gates on: a dense, differentiable forward pass with the outputs of an eventful one.

A token function of buffered tokens is that function of the tokens that were last sent on. So it is enough to put,
behind each gate, the value last sent of a token in the place of its current one, and to compute everything. The result
is that of `exact` and `tokenwise`, in windows and without. Gradients pass through sent values straight to where they
came from, in earlier steps too; the choice of tokens has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from .block import BlockSpec, EventfulOptions
from .policies import Policy, choice_of

Run = Callable[[BlockSpec, Tensor], Tensor]


class TrainingGates:
    """The gates of one sequence of steps; a new sequence needs new ones."""

    ATTENTION = ("exact", "tokenwise")
    """The modes of attention whose results are those of dense attention over the tokens sent on."""

    def __init__(self, policy: Policy, options: EventfulOptions) -> None:
        """
        Args:
            options: what is gated, and with what it is compared.

        Raises ValueError for attention that is neither "exact" nor "tokenwise".
        """
        if options.attention not in self.ATTENTION:
            known = " or ".join(self.ATTENTION)
            raise ValueError(f"training with gates is for {known} attention, not {options.attention!r}")
        self._policy = policy
        self._options = options
        self._gates: dict[str, _Gate] = {}

    def blocks(self, blocks: Sequence[nn.Module]) -> list[Callable[[Tensor, Run], Tensor]]:
        """Blocks for an encoder's dense pass, with gates in them."""
        return [self._gated(number, block) for number, block in enumerate(blocks)]

    def _gated(self, number: int, block: nn.Module) -> Callable[[Tensor, Run], Tensor]:
        def run_block(x: Tensor, run: Run) -> Tensor:
            return run(self._specification(f"blocks.{number}", block.specification()), x)

        return run_block

    def _specification(self, name: str, spec: BlockSpec) -> BlockSpec:
        if spec.other_attention is not None:
            raise ValueError(f"{name}: training with gates is for attention of known code")
        if spec.drops_branches:
            raise ValueError(
                f"{name}: training with gates is without stochastic depth, which would change what passes the gates; "
                "make the model with drop_path_rate = 0"
            )
        before = self._options.gate_before_norm
        return replace(
            spec,
            norm1=_GatedLayer(self._gate(f"{name}.qkv"), spec.norm1, before),
            projection=_GatedLayer(self._gate(f"{name}.projection"), spec.projection, True),
            norm2=_GatedLayer(self._gate(f"{name}.mlp"), spec.norm2, before),
        )

    def _gate(self, name: str) -> _Gate:
        if name not in self._gates:
            keeps = self._options.gate_reference == "last-sent"
            self._gates[name] = _Gate(name, self._policy, keeps)
        return self._gates[name]


class _Gate:
    """Replaces tokens that a policy does not choose by what was sent on before."""

    def __init__(self, name: str, policy: Policy, compares_with_sent: bool) -> None:
        self._name = name
        self._policy = policy
        self._compares_with_sent = compares_with_sent
        self._sent: Tensor | None = None
        self._reference: Tensor | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)"""
        sent = tokens
        if self._sent is not None:
            with torch.no_grad():
                norms = (tokens - self._reference).norm(dim=-1)
                chosen = choice_of(self._policy.for_gate(self._name, tokens.shape[1]), norms)
            sent = torch.where(chosen[..., None], tokens, self._sent)
        self._sent = sent
        self._reference = (sent if self._compares_with_sent else tokens).detach()
        return sent


class _GatedLayer(nn.Module):
    """A layer on tokens with a gate before or behind it."""

    def __init__(self, gate: _Gate, layer: nn.Module, before: bool) -> None:
        super().__init__()
        self._gate = gate
        self._layer = layer
        self._before = before

    def forward(self, tokens: Tensor) -> Tensor:
        return self._layer(self._gate(tokens)) if self._before else self._gate(self._layer(tokens))
