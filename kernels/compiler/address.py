"""Calls through the addresses of machine code, so that what is long to compile is compiled once.

A function that serves one network only is compiled by itself, with numbers and addresses of arrays
for arguments; the kernels that call it are the same for all networks. Whatever is called so has an
interpreted form too, for NUMBA_DISABLE_JIT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils, config
from numba.extending import intrinsic, overload


@intrinsic
def _pointer(typingctx, kind, address):
    """The address as a pointer to numbers like `kind`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(kind)(kind, types.int64), codegen


def array_at(kind, address, shape):
    """The array of numbers like `kind` at an address; shape, a number or a tuple of them."""
    number = np.ctypeslib.as_ctypes_type(kind.dtype)
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((number * size).from_address(int(address))).reshape(shape)


@overload(array_at)
def _array_at(kind, address, shape):
    return lambda kind, address, shape: carray(_pointer(kind, address), shape)


def item_size(kind):
    """Bytes of the number `kind`."""
    return kind.itemsize


@overload(item_size)
def _item_size(kind):
    size = kind.bitwidth // 8
    return lambda kind: size


_interpreted: list[Any] = []  # the functions whose numbers stand for addresses without a compiler


def call_interpreted(address: int, *arguments: Any) -> Any:
    """Call a function by the number that `address_of` gave it where nothing is compiled."""
    return _interpreted[address](*arguments)


def address_of(function: Any, signature: tuple[Any, ...]) -> int:
    """The address of a function's machine code, compiled or loaded from disk.

    Whoever calls it keeps to Numba's convention: a place for the result, a place for an exception
    (there is none here), then the arguments.
    """
    if config.DISABLE_JIT:
        _interpreted.append(function)
        return len(_interpreted) - 1
    function.compile(signature)
    compiled = function.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def call_address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Emit a call of the address args[0] with the other args."""
    address, *values = args
    result = context.get_value_type(signature.return_type)
    byte = ir.IntType(8).as_pointer()
    place = cgutils.alloca_once(builder, result)  # once a function, not once a loop
    exception = cgutils.alloca_once(builder, byte)
    kinds = [place.type, exception.type, *(value.type for value in values)]
    function = ir.FunctionType(ir.IntType(32), kinds).as_pointer()
    builder.call(builder.inttoptr(address, function), [place, exception, *values])
    return builder.load(place)
