"""What a .pt2 of torch.export may hold: whole structures that are known, everything else refused before torch sees it.

As of 2.13, torch.export.load unpickles weights and constants that are marked so, custom objects, and example inputs;
it takes any attribute of torch for an operator; it imports the modules that enumerations in a tree's context name; it
evaluates sizes with `eval`, through sympy, and guards with `exec`; and it makes Python code that holds the names of
values. A list of what is dangerous would grow with every release, so this is a list of what a network of tensors
needs, by the schema in torch/_export/serde/schema.py.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

# Raises Refused for a value that does not have the shape.
Shape = Callable[[Any], None]


class Refused(Exception):
    """Says which part of a program is not known."""


def file_names(names: list[str]) -> None:
    """Refuse an archive that has other files than torch.export.save writes for tensors."""
    for name in names:
        if not _FILES.fullmatch(name):
            raise Refused(name)


def payloads(config: Any, name: str) -> None:
    """Refuse a list of weights or constants that is not one of plain tensors; it comes from the file of that name."""

    def plain(value: Any) -> None:
        if value is not False:
            raise Refused(f"a pickle in {name}")

    payload = _record(
        path_name=_text("path_name", r"(weight|tensor)_\d{1,9}"), is_param=_flag, use_pickle=plain, tensor_meta=_META
    )
    _record(config=_table(_FQN, payload))(config)


def program(value: Any) -> None:
    """Refuse a program, from models/model.json, that has more than the graph of a network."""
    _record(
        graph_module=_GRAPH_MODULE,
        opset_version=_table(_FQN, _whole),
        range_constraints=_table(_SYMBOL, _record(min_val=_or_none(_whole), max_val=_or_none(_whole))),
        schema_version=_record(major=_whole, minor=_whole),
        verifiers=_maybe(_each(_text("verifier", r"[A-Z_]{1,40}"))),
        torch_version=_maybe(_text("torch_version", r"[\w.+<= -]{1,80}")),
        guards_code=_maybe(_nothing_in("guards")),
    )(value)


# A deeper or larger one is none of a network: subgraphs lie in arguments, and children in trees.
_MOST_DEPTH = 16
_MOST_EXPRESSION = 2000
_MOST_TEXT = 100_000
_MOST_EXPONENT = 8

_FILES = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/[\w.-]+|archive_(format|version)|byteorder"
    r"|\.data/(version|serialization_id)"
)
# Of aten, private operators too: casts come with `_assert_tensor_metadata`. Two of its operators touch files.
_OPERATORS = (
    r"torch\.ops\.(aten(?!\.(from_file|save)\b)|prims|quantized_decomposed)\._?[a-z]\w*(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.(cond|invoke_subgraph|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)|math\.[a-z]\w*"
)
_IDENTIFIER = r"[A-Za-z_]\w{0,500}"
_FQN = r"(?:[\w.]{0,500}(?:@\d{1,9})?)"
# torch counts up to the number in the name of a size that is known at run time only.
_SYMBOL = r"[a-z]{1,4}\d{1,4}"


def _text(key: str, pattern: str) -> Shape:
    matches = re.compile(pattern, re.ASCII | re.DOTALL).fullmatch

    def check(value: Any) -> None:
        if not isinstance(value, str) or not matches(value):
            raise Refused(f"{key} {_short(value)}")

    return check


def _short(value: Any) -> str:
    return repr(value)[:80]


def _of(kind: type, name: str, good: Callable[[Any], bool] = lambda _: True) -> Shape:
    def check(value: Any) -> None:
        if type(value) is not kind or not good(value):
            raise Refused(f"{_short(value)} instead of {name}")

    return check


# A number that is larger becomes one of unlimited size, which sympy works on for ever.
_whole = _of(int, "a whole number of 64 bits", lambda value: -(2**63) <= value < 2**64)
_flag = _of(bool, "true or false")


def _number(value: Any) -> None:
    if isinstance(value, str):  # JSON has no word for these
        _text("number", r"-?(Infinity|inf)|NaN|nan")(value)
    elif type(value) is not float:
        _whole(value)


def _or_none(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def _each(shape: Shape) -> Shape:
    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise Refused(f"{_short(value)} instead of a list")
        for part in value:
            shape(part)

    return check


def _nothing_in(what: str) -> Shape:
    def check(value: Any) -> None:
        if value not in ([], {}, None):
            raise Refused(what)

    return check


def _table(pattern: str, shape: Shape) -> Shape:
    name = _text("name", pattern)

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{_short(value)} instead of an object")
        for key, part in value.items():
            name(key)
            shape(part)

    return check


class _Maybe:
    """The shape of a field that older or newer releases leave out."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


_maybe = _Maybe


def _record(**fields: Shape | _Maybe) -> Shape:
    shapes = {key: shape.shape if isinstance(shape, _Maybe) else shape for key, shape in fields.items()}
    needed = {key for key, shape in fields.items() if not isinstance(shape, _Maybe)}

    def check(value: Any) -> None:
        if not isinstance(value, dict) or not needed <= value.keys():
            raise Refused(f"{_short(value)} instead of {', '.join(fields)}")
        for key, part in value.items():
            if key not in shapes:
                raise Refused(f"field {_short(key)}")
            shapes[key](part)

    return check


def _one_of(**kinds: Shape) -> Shape:
    """A union of the schema: an object with one key, which names the kind."""

    def check(value: Any) -> None:
        if not isinstance(value, dict) or len(value) != 1:
            raise Refused(f"{_short(value)} instead of one kind of value")
        ((kind, part),) = value.items()
        if kind not in kinds:
            raise Refused(f"kind {_short(kind)}")
        kinds[kind](part)

    return check


def _tree(text: Any) -> None:
    """A tree of containers, as torch.utils._pytree.treespec_dumps writes it."""
    _text("tree", rf".{{0,{_MOST_TEXT}}}")(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(f"tree {_short(text)}") from None
    if not isinstance(value, list) or len(value) != 2 or value[0] != 1:
        raise Refused(f"tree {_short(text)}")
    _tree_node(value[1], _MOST_DEPTH)


# Of these, a context is nothing, or the keys in their order.
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
        _text("context of a tree", rf".{{0,{_MOST_TEXT}}}")(text)
        try:
            keys = json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(f"context of a tree {_short(text)}") from None
        if keys is not None:
            _each(_text("context of a tree", r"[\w.]{1,500}"))(keys)

    def kind(name: Any) -> None:
        if not isinstance(name, str) or name not in _CONTAINERS:
            raise Refused(f"tree of {_short(name)}")

    if depth == 0:
        raise Refused("a tree that is too deep")
    leaf = isinstance(value, dict) and value.get("type") is None
    nothing = _nothing_in("a leaf with a context")
    children = _each(lambda child: _tree_node(child, depth - 1))
    _record(
        type=nothing if leaf else kind,
        context=nothing if leaf else context,
        children_spec=_nothing_in("a leaf with children") if leaf else children,
    )(value)


# Names of sympy, and the functions that torch adds, of which sizes are made.
_FUNCTIONS = {
    *("Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv"),
    *("CleanDiv", "ModularIndexing", "Equality", "Unequality", "Not", "And", "Or", "LessThan", "StrictLessThan"),
    *("GreaterThan", "StrictGreaterThan"),
}


def _expression(text: Any) -> None:
    """A size as sympy.srepr writes it: sums and products of symbols and numbers, cheap to evaluate."""
    _text("expr_str", rf".{{1,{_MOST_EXPRESSION}}}")(text)
    try:
        node = ast.parse(text, mode="eval").body
        _arithmetic(node, _MOST_DEPTH, powers=1)
    except (SyntaxError, ValueError, RecursionError, MemoryError, Refused):
        raise Refused(f"expr_str {_short(text)}") from None


def _arithmetic(node: ast.expr, depth: int, powers: int) -> None:
    def inner(part: ast.expr) -> None:
        _arithmetic(part, depth - 1, powers)

    if depth == 0:
        raise Refused("too deep")
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value):
            _number(value)
        case ast.Name(id=name):
            _text("name", _SYMBOL)(name)
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
            _text("name", _IDENTIFIER)(name)
            if not all(isinstance(word.value, ast.Constant) and type(word.value.value) is bool for word in keywords):
                raise Refused("a symbol")
        case ast.Call(func=ast.Name(id="Pow"), args=[base, exponent], keywords=[]):
            _power(base, exponent, depth, powers)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as value)]):
            _text("number", r"-?\d{1,30}(\.\d{1,30})?(e[+-]?\d{1,3})?")(value)
            for word in node.keywords:
                if not isinstance(word.value, ast.Constant) or word.value.value not in range(1, 257):
                    raise Refused("a precision")
        case ast.Call(func=ast.Name(id=function), args=args, keywords=[]) if function in _FUNCTIONS:
            for part in args:
                inner(part)
        case _:
            raise Refused("no arithmetic")


def _power(base: ast.expr, exponent: ast.expr, depth: int, powers: int) -> None:
    """A power whose exponent is a small number, and whose base has no other power in it: 9 ** 9 ** 10 hangs sympy."""
    value = ast.unparse(exponent)
    number = re.fullmatch(r"(?:Integer\()?(-?\d{1,2})\)?", value)
    if powers == 0 or number is None or abs(int(number[1])) > _MOST_EXPONENT:
        raise Refused("a power")
    _arithmetic(base, depth - 1, powers - 1)


_NAME = _text("name", _IDENTIFIER)
_DOTTED = _text("fqn", _FQN)
_DEVICE = _record(type=_text("device", r"[a-z]{1,20}"), index=_maybe(_or_none(_whole)))
_HINT = _one_of(as_int=_whole, as_bool=_flag, as_float=_number)
_SYMBOLIC = _record(expr_str=_expression, hint=_maybe(_or_none(_HINT)))
_SYM_INT = _one_of(as_expr=_SYMBOLIC, as_int=_whole)
_TENSOR = _record(name=_text("name", rf"(?:{_IDENTIFIER})?"))
_NAMED = {"as_name": _text("as_name", _IDENTIFIER)}
_META = _record(
    dtype=_whole,
    sizes=_each(_SYM_INT),
    requires_grad=_flag,
    device=_DEVICE,
    strides=_each(_SYM_INT),
    storage_offset=_SYM_INT,
    layout=_whole,
)


def _argument(depth: int) -> Shape:
    """An argument of an operator, in which graphs lie no deeper than this."""
    return _one_of(
        as_none=_flag,
        as_tensor=_TENSOR,
        as_tensors=_each(_TENSOR),
        as_int=_whole,
        as_ints=_each(_whole),
        as_float=_number,
        as_floats=_each(_number),
        # Such as an equation of einsum, or how gelu is approximated.
        as_string=_text("as_string", r"[\w ,.>-]{0,500}"),
        as_sym_int=_one_of(as_int=_whole, **_NAMED),
        as_sym_ints=_each(_one_of(as_int=_whole, **_NAMED)),
        as_sym_float=_one_of(as_float=_number, **_NAMED),
        as_sym_floats=_each(_one_of(as_float=_number, **_NAMED)),
        as_sym_bool=_one_of(as_bool=_flag, **_NAMED),
        as_sym_bools=_each(_one_of(as_bool=_flag, **_NAMED)),
        as_scalar_type=_whole,
        as_memory_format=_whole,
        as_layout=_whole,
        as_device=_DEVICE,
        as_bool=_flag,
        as_bools=_each(_flag),
        as_optional_tensor=_one_of(as_tensor=_TENSOR, as_none=_flag),
        as_optional_tensors=_each(_one_of(as_tensor=_TENSOR, as_none=_flag)),
        as_nested_tensors=_each(_each(_TENSOR)),
        as_int_lists=_each(_each(_whole)),
        as_float_lists=_each(_each(_number)),
        as_operator=_text("as_operator", _OPERATORS),
        as_graph=_record(name=_NAME, graph=lambda value: _graph(depth - 1)(value)),
    )


# What torch remembers of where an operator came from. It reads `source_fn_stack` as names of operators.
_PLAIN = rf".{{0,{_MOST_TEXT}}}"
_ORIGIN: Mapping[str, Shape] = {
    "stack_trace": _text("stack_trace", _PLAIN),
    "nn_module_stack": _text("nn_module_stack", _PLAIN),
    "torch_fn": _text("torch_fn", _PLAIN),
    "from_node": _text("from_node", _PLAIN),
    "custom": _text("custom", _PLAIN),
    "source_fn_stack": _text("source_fn_stack", rf"(?:\w{{1,200}},(?:torch\.nn(?:\.\w{{1,100}})+|{_OPERATORS});?)*"),
}


def _graph(depth: int) -> Shape:
    if depth == 0:
        raise Refused("graphs that lie too deep in one another")
    argument = _argument(depth)
    node = _record(
        target=_text("target", _OPERATORS),
        inputs=_each(_record(name=_text("name", r"\w{0,500}"), arg=argument, kind=_maybe(_or_none(_whole)))),
        outputs=_each(argument),
        metadata=_record(**{key: _maybe(shape) for key, shape in _ORIGIN.items()}),
        is_hop_single_tensor_return=_maybe(_or_none(_flag)),
        name=_maybe(_or_none(_NAME)),
    )
    return _record(
        inputs=_each(argument),
        outputs=_each(argument),
        nodes=_each(node),
        tensor_values=_table(_IDENTIFIER, _META),
        sym_int_values=_table(_IDENTIFIER, _SYM_INT),
        sym_bool_values=_table(_IDENTIFIER, _one_of(as_expr=_SYMBOLIC, as_bool=_flag)),
        is_single_tensor_return=_maybe(_flag),
        custom_obj_values=_maybe(_nothing_in("custom objects")),
        sym_float_values=_maybe(_table(_IDENTIFIER, _one_of(as_expr=_SYMBOLIC, as_float=_number))),
    )


_TOP = _argument(_MOST_DEPTH)
_CONSTANT = _one_of(
    as_none=_flag, as_int=_whole, as_float=_number, as_string=_text("as_string", r"[\w ,.>-]{0,500}"), as_bool=_flag
)
_GRAPH_MODULE = _record(
    graph=_graph(_MOST_DEPTH),
    signature=_record(
        input_specs=_each(
            _one_of(
                user_input=_record(arg=_TOP),
                parameter=_record(arg=_TENSOR, parameter_name=_DOTTED),
                buffer=_record(arg=_TENSOR, buffer_name=_DOTTED, persistent=_flag),
                tensor_constant=_record(arg=_TENSOR, tensor_constant_name=_DOTTED),
                constant_input=_record(name=_NAME, value=_CONSTANT),
            )
        ),
        output_specs=_each(_one_of(user_output=_record(arg=_TOP))),
    ),
    module_call_graph=_each(
        _record(
            fqn=_DOTTED,
            signature=_maybe(
                _or_none(
                    _record(
                        inputs=_each(_TOP),
                        outputs=_each(_TOP),
                        in_spec=_tree,
                        out_spec=_tree,
                        forward_arg_names=_maybe(_or_none(_each(_NAME))),
                    )
                )
            ),
        )
    ),
    metadata=_maybe(_record(custom=_maybe(_text("custom", _PLAIN)))),
    treespec_namedtuple_fields=_maybe(_nothing_in("named tuples")),
)
