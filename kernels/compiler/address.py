"""Calls through the addresses of machine code, so that what is long to compile is compiled once.

A function that serves one network only is compiled by itself, with numbers and addresses of arrays
for arguments; the kernels that call it are the same for all networks. Whatever is called so has an
interpreted form too, for NUMBA_DISABLE_JIT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.np.arrayobj import np_cfarray

from .lowering import lowers_to


def _array_at(kind, address, shape):
    dimensions = len(shape) if isinstance(shape, types.BaseTuple) else 1
    array, pointer = types.Array(kind, dimensions, "C"), types.CPointer(kind)

    def codegen(context, builder, signature, args):
        place = builder.inttoptr(args[1], context.get_value_type(pointer))
        return np_cfarray(context, builder, array(pointer, shape), (place, args[2]))

    return array(kind, types.int64, shape), codegen


@lowers_to(_array_at)
def array_at(kind, address, shape):
    """The array of numbers like `kind` at an address; shape, a number or a tuple of them."""
    number = np.ctypeslib.as_ctypes_type(kind.dtype)
    size = int(np.prod(shape))
    return np.ctypeslib.as_array((number * size).from_address(int(address))).reshape(shape)


def _item_size(kind):
    def codegen(context, builder, signature, args):
        return context.get_constant(types.int64, kind.bitwidth // 8)

    return types.int64(kind), codegen


@lowers_to(_item_size)
def item_size(kind):
    """Bytes of the number `kind`."""
    return kind.itemsize


def _in_whole_registers():
    def codegen(context, builder, signature, args):
        # llvmlite's own `add` takes no attribute with a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        # The stack begins at any 16 bytes otherwise, and what is kept there crosses cache lines.
        set.add(builder.function.attributes, '"stackrealign"')

    return types.none(), codegen


@lowers_to(_in_whole_registers)
def in_whole_registers():
    """LLVM's loops in the function that calls this take registers of 512 bits where there are any.

    By itself it takes half of them on Intel's processors. The products beside these loops take
    whole ones anyway. No register that is kept on the stack crosses a cache line there.
    """


_interpreted: list[Any] = [None]  # whose numbers stand for addresses without a compiler; 0 is none


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
    """Emit a call of the address args[0] with the other args, numbers and tuples of them."""
    address = args[0]
    values = context.get_arg_packer(signature.args[1:]).as_arguments(builder, args[1:])
    result = context.get_value_type(signature.return_type)
    byte = ir.IntType(8).as_pointer()
    place = cgutils.alloca_once(builder, result)  # once a function, not once a loop
    exception = cgutils.alloca_once(builder, byte)
    kinds = [place.type, exception.type, *(value.type for value in values)]
    function = ir.FunctionType(ir.IntType(32), kinds).as_pointer()
    builder.call(builder.inttoptr(address, function), [place, exception, *values])
    return builder.load(place)
