# SPDX-License-Identifier: Apache-2.0
"""The check by what the graphs prove, and where they do not by a run."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from plprune.compilation import run_once
from plprune.graph.independence import Read, Verdict, compared, read_batch, trace_single
from plprune.graph.tracing import Graph, trace
from plprune.independence.trial import agree_if_known, batch_size
from plprune.types import Apply, Inputs, Params

T = TypeVar("T")
_RULE = (
    "apply must treat examples independently (evaluation mode), for the kernel of one example's "
    "output is not defined otherwise: "
)


class DependentError(ValueError):
    """Examples are seen to influence each other, or their place or number to enter."""


class NotProvenError(DependentError):
    """The graphs do not prove independence, and there are no values that could decide."""


def check_independent(
    apply: Apply, params: Params, inputs: Inputs, *, independent: bool = False
) -> None:
    """ValueError unless output i of `apply` is one function of example i, the same for all i.

    The traced graphs of the batch and of one example are compared; nothing is computed where they
    prove it. Else `apply` and one derivative of it are run once: on the batch, on every example by
    itself, and on the batch in another order with other companions. Rows that agree to rounding
    pass.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...].
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      independent: The caller's word; nothing is checked.

    Raises:
      ValueError: examples influence each other, or their place or number enters, by the name and
        line of the operation; or neither is proven and values are not at hand (under jit, vmap or
        grad).
    """
    if not independent:
        is_proven(apply, params, inputs)


def is_proven(apply: Apply, params: Params, inputs: Inputs) -> bool:
    """`check_independent`: True if the graphs prove it for all inputs of these shapes.

    Raises:
      ValueError: as there.
    """
    size = batch_size(inputs)
    if size < 2:
        return True
    read = read_or_refuse(trace(apply, params, inputs), size)
    return settle(read, alone(trace_single, apply, params, inputs), apply, params, inputs)


def read_or_refuse(batch: Graph, size: int) -> Read:
    """The batch's graph as it is read: the first half of `check_independent`.

    Raises:
      ValueError: outputs without the batch axis, or it shows that examples influence each other.
    """
    shapes = [batch.shape(v) for v in batch.outputs]
    if any(shape[:1] != (size,) for shape in shapes):
        raise ValueError(
            f"apply must return one output per example: inputs hold {size}, outputs have shapes "
            f"{shapes}."
        )
    read = read_batch(batch, size)
    _refuse_mixed(read.verdict)
    return read


def alone(call: Callable[..., T], *args: Any, **options: Any) -> T:
    """``call(*args, **options)``, which traces one example, with an error that says so."""
    try:
        return call(*args, **options)
    except Exception as error:
        raise DependentError(f"{_RULE}one example alone fails: {_short(error)}") from error


def settle(read: Read, single: Graph, apply: Apply, params: Params, inputs: Inputs) -> bool:
    """The second half of `check_independent`, with the graph of one example.

    Returns:
      True if the graphs prove independence, for any values; False if the values decided.

    Raises:
      ValueError: as there.
    """
    found = compared(read, single)
    _refuse_mixed(found)
    if found.outcome == "independent":
        return True
    try:
        agree = agree_if_known(read, apply, params, inputs)
    except Exception as error:
        reason = f"{found.reason}, and a run that would tell fails: {_short(error)}"
        raise DependentError(f"{_RULE}{reason}") from error
    if agree is None:
        raise NotProvenError(
            f"{_RULE}this is not proven ({found.reason}), and under jit, vmap or grad there are no "
            "values to try it on; independent=True takes your word for it."
        )
    if not agree:
        raise DependentError(f"{_RULE}rows come out otherwise by themselves ({found.reason}).")
    return False


def on_its_word(
    call: Callable[[bool], T], independent: bool, arguments: tuple[Apply, Params, Inputs]
) -> T:
    """``call(independent)`` of something that checks where it sees no values, as in a branch.

    Where that does not suffice, the check is made out here on `arguments`, with values and with
    the lines of the user's own code, and the call has its word.

    Raises:
      ValueError: as `check_independent`.
    """
    try:
        return call(independent)
    except DependentError:
        check_independent(*arguments)
        return call(True)


def run_where_independent(
    function: Callable, static: Mapping[str, Any], dynamic: Mapping[str, Any]
) -> Any:
    """`run_once` of a function of apply, params and inputs that calls `check_independent` itself.

    Where the graphs do not prove independence the values at hand decide, and the program that is
    kept takes that for granted; the next call tries its own values.
    """
    try:
        return run_once(function, static, dynamic)
    except NotProvenError:
        for name in ("inputs", "other"):
            if dynamic.get(name) is not None:
                check_independent(static["apply"], dynamic["params"], dynamic[name])
    return run_once(function, {**static, "independent": True}, dynamic)


def doubt(batch: Graph, apply: Apply, params: Params, inputs: Inputs) -> str:
    """Why the graphs do not prove that examples are treated independently; empty where they do.

    Args:
      batch: The graph of ``apply(params, inputs)``.
      apply: As `check_independent` takes it, like the next two.
      params: Tree of arrays or their shapes.
      inputs: Tree of arrays or their shapes.
    """
    try:
        size = batch_size(inputs)
    except ValueError as error:
        return str(error).removesuffix(".")
    if size < 2:
        return ""
    read = read_batch(batch, size)
    if read.verdict.outcome != "independent":
        return read.verdict.reason
    try:
        return compared(read, trace_single(apply, params, inputs)).reason
    except Exception as error:
        return f"one example alone fails: {_short(error)}"


def _refuse_mixed(found: Verdict):
    if found.outcome == "mixed":
        raise DependentError(f"{_RULE}{found.reason}.")


def _short(error):
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"
