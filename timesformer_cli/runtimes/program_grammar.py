"""The structures that a .pt2 of torch.export may have; everything else is refused before torch reads it.

As of 2.13, torch.export.load unpickles weights and constants that are marked so, custom objects, and example inputs.
It takes any attribute of torch as an operator. It imports the modules that enumerations in a tree's context name. It
evaluates sizes with `eval`, through sympy, and guards with `exec`. It generates Python code that contains the names of
values. A list of these dangers would grow with every release. So this is a list of what a network of tensors needs, by
the schema in torch/_export/serde/schema.py.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from timesformer_cli import strict_json
from timesformer_cli.shapes import (
    Maybe,
    Shape,
    ShapeError,
    each,
    flag,
    matching,
    nothing_in,
    one_of,
    or_none,
    record,
    short,
    table,
    whole,
)


def file_names(names: list[str]) -> None:
    """Refuse an archive with files that torch.export.save does not write for tensors."""
    for name in names:
        if not _FILES.fullmatch(name):
            raise ShapeError(name)


def payloads(config: Any, name: str) -> None:
    """Refuse a list of weights or constants, from the file `name`, that are not all plain tensors."""

    def plain(value: Any) -> None:
        if value is not False:
            raise ShapeError(f"a pickle in {name}")

    payload = record(
        path_name=matching("path_name", r"(weight|tensor)_\d{1,9}"), is_param=flag, use_pickle=plain, tensor_meta=_META
    )
    record(config=table(_DOTTED, payload))(config)


def program(value: Any) -> None:
    """Refuse a program, from models/model.json, that is more than the graph of a network."""
    record(
        graph_module=_GRAPH_MODULE,
        opset_version=table(_DOTTED, whole),
        range_constraints=table(matching("name", _SYMBOL), record(min_val=or_none(whole), max_val=or_none(whole))),
        schema_version=record(major=whole, minor=whole),
        verifiers=Maybe(each(matching("verifier", r"[A-Z_]{1,40}"))),
        torch_version=Maybe(matching("torch_version", r"[\w.+<= -]{1,80}")),
        guards_code=Maybe(nothing_in("guards")),
    )(value)


# No network has deeper or larger ones: subgraphs are in arguments, and children in trees.
_MOST_DEPTH = 16
_MOST_EXPRESSION = 2000
_MOST_TEXT = 100_000
_MOST_EXPONENT = 8

_FILES = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/[\w.-]+|archive_(format|version)|byteorder"
    r"|\.data/(version|serialization_id)"
)
# Private operators of aten too: casts come with `_assert_tensor_metadata`. Two operators of aten touch files.
_OPERATORS = (
    r"torch\.ops\.(aten(?!\.(from_file|save)\b)|prims|quantized_decomposed)\._?[a-z]\w*(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.(cond|invoke_subgraph|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)|math\.[a-z]\w*"
)
_IDENTIFIER = r"[A-Za-z_]\w{0,500}"
_FQN = r"(?:[\w.]{0,500}(?:@\d{1,9})?)"
# torch counts up to the number in the name of a size that is only known at run time.
_SYMBOL = r"[a-z]{1,4}\d{1,4}"


def _number(value: Any) -> None:
    if isinstance(value, str):  # JSON has no word for these
        matching("number", r"-?(Infinity|inf)|NaN|nan")(value)
    elif type(value) is not float:
        whole(value)


def _tree(text: Any) -> None:
    """A tree of containers, as torch.utils._pytree.treespec_dumps writes it."""
    value = _parsed("tree", text)
    if not isinstance(value, list) or len(value) != 2 or value[0] != 1:
        raise ShapeError(f"tree {short(text)}")
    _tree_node(value[1], _MOST_DEPTH)


def _parsed(key: str, text: Any) -> Any:
    """The value of JSON inside a text; messages call it `key`."""
    matching(key, rf".{{0,{_MOST_TEXT}}}")(text)
    try:
        return strict_json.loads(text)
    except ValueError:
        raise ShapeError(f"{key} {short(text)}") from None


# Their context is empty, or has the keys in order.
_CONTAINERS = {
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "torch.fx.immutable_collections.immutable_list",
    "torch.fx.immutable_collections.immutable_dict",
}


def _tree_node(value: Any, depth: int) -> None:
    def context(text: Any) -> None:
        keys = _parsed("context of a tree", text)
        if keys is not None:
            each(matching("context of a tree", r"[\w.]{1,500}"))(keys)

    def kind(name: Any) -> None:
        if not isinstance(name, str) or name not in _CONTAINERS:
            raise ShapeError(f"tree of {short(name)}")

    if depth == 0:
        raise ShapeError("a tree that is too deep")
    leaf = isinstance(value, dict) and value.get("type") is None
    nothing = nothing_in("a leaf with a context")
    children = each(lambda child: _tree_node(child, depth - 1))
    record(
        type=nothing if leaf else kind,
        context=nothing if leaf else context,
        children_spec=nothing_in("a leaf with children") if leaf else children,
    )(value)


# Functions of sympy, and those that torch adds, that sizes consist of.
_FUNCTIONS = {
    *("Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv"),
    *("CleanDiv", "ModularIndexing", "Equality", "Unequality", "Not", "And", "Or", "LessThan", "StrictLessThan"),
    *("GreaterThan", "StrictGreaterThan"),
}


def _expression(text: Any) -> None:
    """A size as sympy.srepr writes it: sums and products of symbols and numbers, which are cheap to evaluate."""
    matching("expr_str", rf".{{1,{_MOST_EXPRESSION}}}")(text)
    try:
        node = ast.parse(text, mode="eval").body
        _arithmetic(node, _MOST_DEPTH, powers=1)
    except (SyntaxError, ValueError, RecursionError, MemoryError, ShapeError):
        raise ShapeError(f"expr_str {short(text)}") from None


def _arithmetic(node: ast.expr, depth: int, powers: int) -> None:
    def inner(part: ast.expr) -> None:
        _arithmetic(part, depth - 1, powers)

    if depth == 0:
        raise ShapeError("too deep")
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value):
            _number(value)
        case ast.Name(id=name):
            matching("name", _SYMBOL)(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            inner(operand)
        case ast.BinOp(op=ast.Pow(), left=base, right=exponent):
            _power(base, exponent, depth, powers)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod()):
            inner(node.left)
            inner(node.right)
        case ast.Compare(left=left, comparators=[right]):
            inner(left)
            inner(right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=name)], keywords=keywords):
            matching("name", _IDENTIFIER)(name)
            if not all(isinstance(word.value, ast.Constant) and type(word.value.value) is bool for word in keywords):
                raise ShapeError("a symbol")
        case ast.Call(func=ast.Name(id="Pow"), args=[base, exponent], keywords=[]):
            _power(base, exponent, depth, powers)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as value)]):
            matching("number", r"-?\d{1,30}(\.\d{1,30})?(e[+-]?\d{1,3})?")(value)
            for word in node.keywords:
                if not isinstance(word.value, ast.Constant) or word.value.value not in range(1, 257):
                    raise ShapeError("a precision")
        case ast.Call(func=ast.Name(id=function), args=args, keywords=[]) if function in _FUNCTIONS:
            for part in args:
                inner(part)
        case _:
            raise ShapeError("no arithmetic")


def _power(base: ast.expr, exponent: ast.expr, depth: int, powers: int) -> None:
    """A power with a small number as exponent, and no other power in its base: 9 ** 9 ** 10 hangs sympy."""
    value = ast.unparse(exponent)
    number = re.fullmatch(r"(?:Integer\()?(-?\d{1,2})\)?", value)
    if powers == 0 or number is None or abs(int(number[1])) > _MOST_EXPONENT:
        raise ShapeError("a power")
    _arithmetic(base, depth - 1, powers - 1)


_NAME = matching("name", _IDENTIFIER)
_DOTTED = matching("fqn", _FQN)
_DEVICE = record(type=matching("device", r"[a-z]{1,20}"), index=Maybe(or_none(whole)))
_HINT = one_of(as_int=whole, as_bool=flag, as_float=_number)
_SYMBOLIC = record(expr_str=_expression, hint=Maybe(or_none(_HINT)))
_SYM_INT = one_of(as_expr=_SYMBOLIC, as_int=whole)
_TENSOR = record(name=matching("name", rf"(?:{_IDENTIFIER})?"))
_NAMED = {"as_name": matching("as_name", _IDENTIFIER)}
_META = record(
    dtype=whole,
    sizes=each(_SYM_INT),
    requires_grad=flag,
    device=_DEVICE,
    strides=each(_SYM_INT),
    storage_offset=_SYM_INT,
    layout=whole,
)


def _argument(depth: int) -> Shape:
    """An argument of an operator; graphs in it are nested at most `depth` deep."""
    return one_of(
        as_none=flag,
        as_tensor=_TENSOR,
        as_tensors=each(_TENSOR),
        as_int=whole,
        as_ints=each(whole),
        as_float=_number,
        as_floats=each(_number),
        # For example an equation of einsum, or the approximation of gelu.
        as_string=matching("as_string", r"[\w ,.>-]{0,500}"),
        as_sym_int=one_of(as_int=whole, **_NAMED),
        as_sym_ints=each(one_of(as_int=whole, **_NAMED)),
        as_sym_float=one_of(as_float=_number, **_NAMED),
        as_sym_floats=each(one_of(as_float=_number, **_NAMED)),
        as_sym_bool=one_of(as_bool=flag, **_NAMED),
        as_sym_bools=each(one_of(as_bool=flag, **_NAMED)),
        as_scalar_type=whole,
        as_memory_format=whole,
        as_layout=whole,
        as_device=_DEVICE,
        as_bool=flag,
        as_bools=each(flag),
        as_optional_tensor=one_of(as_tensor=_TENSOR, as_none=flag),
        as_optional_tensors=each(one_of(as_tensor=_TENSOR, as_none=flag)),
        as_nested_tensors=each(each(_TENSOR)),
        as_int_lists=each(each(whole)),
        as_float_lists=each(each(_number)),
        as_operator=matching("as_operator", _OPERATORS),
        as_graph=record(name=_NAME, graph=lambda value: _graph(depth - 1)(value)),
    )


# Where an operator came from. torch reads `source_fn_stack` as names of operators.
_PLAIN = rf".{{0,{_MOST_TEXT}}}"
_ORIGIN: Mapping[str, Shape] = {
    "stack_trace": matching("stack_trace", _PLAIN),
    "nn_module_stack": matching("nn_module_stack", _PLAIN),
    "torch_fn": matching("torch_fn", _PLAIN),
    "from_node": matching("from_node", _PLAIN),
    "custom": matching("custom", _PLAIN),
    "source_fn_stack": matching("source_fn_stack", rf"(?:\w{{1,200}},(?:torch\.nn(?:\.\w{{1,100}})+|{_OPERATORS});?)*"),
}


def _graph(depth: int) -> Shape:
    if depth == 0:
        raise ShapeError("graphs that are nested too deeply")
    argument = _argument(depth)
    node = record(
        target=matching("target", _OPERATORS),
        inputs=each(record(name=matching("name", r"\w{0,500}"), arg=argument, kind=Maybe(or_none(whole)))),
        outputs=each(argument),
        metadata=record(**{key: Maybe(shape) for key, shape in _ORIGIN.items()}),
        is_hop_single_tensor_return=Maybe(or_none(flag)),
        name=Maybe(or_none(_NAME)),
    )
    return record(
        inputs=each(argument),
        outputs=each(argument),
        nodes=each(node),
        tensor_values=table(_NAME, _META),
        sym_int_values=table(_NAME, _SYM_INT),
        sym_bool_values=table(_NAME, one_of(as_expr=_SYMBOLIC, as_bool=flag)),
        is_single_tensor_return=Maybe(flag),
        custom_obj_values=Maybe(nothing_in("custom objects")),
        sym_float_values=Maybe(table(_NAME, one_of(as_expr=_SYMBOLIC, as_float=_number))),
    )


_TOP = _argument(_MOST_DEPTH)
_CONSTANT = one_of(
    as_none=flag, as_int=whole, as_float=_number, as_string=matching("as_string", r"[\w ,.>-]{0,500}"), as_bool=flag
)
_GRAPH_MODULE = record(
    graph=_graph(_MOST_DEPTH),
    signature=record(
        input_specs=each(
            one_of(
                user_input=record(arg=_TOP),
                parameter=record(arg=_TENSOR, parameter_name=_DOTTED),
                buffer=record(arg=_TENSOR, buffer_name=_DOTTED, persistent=flag),
                tensor_constant=record(arg=_TENSOR, tensor_constant_name=_DOTTED),
                constant_input=record(name=_NAME, value=_CONSTANT),
            )
        ),
        output_specs=each(one_of(user_output=record(arg=_TOP))),
    ),
    module_call_graph=each(
        record(
            fqn=_DOTTED,
            signature=Maybe(
                or_none(
                    record(
                        inputs=each(_TOP),
                        outputs=each(_TOP),
                        in_spec=_tree,
                        out_spec=_tree,
                        forward_arg_names=Maybe(or_none(each(_NAME))),
                    )
                )
            ),
        )
    ),
    metadata=Maybe(record(custom=Maybe(matching("custom", _PLAIN)))),
    treespec_namedtuple_fields=Maybe(nothing_in("named tuples")),
)
