"""Functions that run interpreted as they stand, and are other code where they are compiled."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from numba import types
from numba.core.typing.templates import infer_global, make_intrinsic_template


def lowers_to(form: Callable[..., Any], prefer_literal: bool = False) -> Callable[[Any], Any]:
    """Decorator: the function stands in, interpreted, for the code that `form` gives.

    form(*types) of a call's arguments returns the signature and codegen(context, builder,
    signature, args), as in Numba's `intrinsic`; a codegen without a result may return None.
    Unlike an overload that forwards to an intrinsic this adds no function to compile.
    """

    def lower(function: Any) -> Any:
        def definition(typingctx: Any, *kinds: Any) -> Any:
            found = form(*kinds)
            return found and (found[0], _with_result(found[1]))

        first = Parameter("typingctx", Parameter.POSITIONAL_OR_KEYWORD)
        named = signature(function)
        parameters = [first, *named.parameters.values()]
        definition.__signature__ = named.replace(parameters=parameters)  # type: ignore[attr-defined]
        template = make_intrinsic_template(
            function, definition, function.__name__, prefer_literal=prefer_literal
        )
        infer_global(function, types.Function(template))
        return function

    return lower


def _with_result(codegen: Any) -> Any:
    def complete(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = codegen(context, builder, signature, args)
        return context.get_dummy_value() if value is None else value

    return complete
