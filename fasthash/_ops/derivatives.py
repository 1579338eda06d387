"""How ops are differentiated and batched: once for all ops.

Reverse mode is one fused op. What that cannot give is computed from torch ops (the op's `formula`), which torch knows
how to differentiate: forward mode, the transforms of torch.func, and gradients that are to be differentiated again
(create_graph=True). No tangent and no second derivative is zero in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from fasthash._ops.registry import computed_in_float32, implement


def differentiable(
    name: str,
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
    formula: Callable[..., Any],
) -> None:
    """Registers an op's derivatives.

    setup_context(ctx, inputs, output) and backward(ctx, *grads) are those of torch.library.register_autograd.
    formula(*arguments) gives the op's outputs from torch ops; it may call the op itself on inputs without derivatives.
    """
    op = getattr(torch.ops.fasthash, name).default

    def below(keyset: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            *inputs, keyset = arguments
            output = below(keyset, *inputs)
            setup_context(ctx, tuple(inputs), output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return *backward(ctx, *grads), None

    def run(keyset: Any, *arguments: Any) -> Any:
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        if any(map(has_tangent, tensors)):
            return formula(*arguments)
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
            return below(keyset, *arguments)
        if torch._C._are_functorch_transforms_active():
            return formula(*arguments)
        return Reverse.apply(*arguments, keyset)  # type: ignore[no-untyped-call]

    implement(name, run, "Autograd")
    computed_in_float32(name)


def has_tangent(x: Tensor) -> bool:
    """Whether x carries a forward-mode derivative."""
    # Levels do not nest, so there is none but 0. Outside torch.func the default, the level that Python has entered, is
    # the same and takes 0.2 microseconds instead of 3; a compiled torch.func.jvp enters it unseen by Python.
    level = 0 if torch._C._are_functorch_transforms_active() else None
    return unpack_dual(x, level=level).tangent is not None


def plain(x: Tensor | None) -> Tensor | None:
    """The tensor without its tangent; for calls under torch.no_grad."""
    return None if x is None else unpack_dual(x, level=0).primal


def differentiable_again(grad: Tensor) -> bool:
    """Whether a gradient that is computed from `grad` needs derivatives of its own."""
    return torch.is_grad_enabled() or has_tangent(grad)


def through(value: Callable[[], Tensor], inputs: tuple[Tensor | None, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of value() at those inputs that ask for one, themselves differentiable."""
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    with torch.enable_grad():
        found = iter(torch.autograd.grad(value(), wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs)


def one_by_one(name: str) -> Callable[..., Any]:
    """The batching rule of an op that has no batch dimension of its own: one call for each element."""
    op = getattr(torch.ops.fasthash, name).default

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        calls = [
            op(*(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        return tuple(map(torch.stack, zip(*calls, strict=True))), (0,) * len(calls[0])

    return rule


def folded(name: str) -> Callable[..., Any]:
    """The batching rule of an op over x [L, N, D] and y [1 or L, M, D] or None, whose outputs begin with L too."""
    op = getattr(torch.ops.fasthash, name).default

    def rule(info: Any, in_dims: tuple[int | None, ...], x: Tensor, y: Tensor | None, *settings: Any) -> Any:
        size, (x_dim, y_dim) = info.batch_size, in_dims[:2]
        x = x.expand(size, *x.shape) if x_dim is None else x.movedim(x_dim, 0)
        batches = x.shape[1]
        if y is not None and not (y_dim is None and y.shape[0] == 1):
            y = y.expand(size, *y.shape) if y_dim is None else y.movedim(y_dim, 0)
            y = y.expand(size, batches, *y.shape[2:]).flatten(0, 1)
        outputs = op(x.flatten(0, 1), y, *settings)
        return tuple(output.unflatten(0, (size, batches)) for output in outputs), (0,) * len(outputs)

    return rule
