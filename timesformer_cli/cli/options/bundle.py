"""Commands whose parameters are bundles of options."""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from inspect import Parameter
from typing import Any, get_type_hints


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """The command in the form that Typer takes: each bundle, a dataclass of options, is replaced by its options.

    A bundle may hold bundles. Options keep the order in which they are written.
    """
    hints = get_type_hints(command, include_extras=True)
    given = inspect.signature(command).parameters.values()
    parameters: list[Parameter] = []
    for parameter in given:
        hint = hints[parameter.name]
        parameters += (
            _options(hint) if is_dataclass(hint) else [parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY)]
        )

    def run(**values: Any) -> None:
        command(**{each.name: _take(hints[each.name], each.name, values) for each in given})

    signature = inspect.Signature(parameters)
    if len(signature.parameters) != len(parameters):
        raise TypeError(f"{command.__name__}: two bundles have the same option")
    vars(run).update(__signature__=signature, __annotations__={each.name: each.annotation for each in parameters})
    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    return run


def _options(bundle: Any) -> Iterator[Parameter]:
    hints = _hints(bundle)
    for each in fields(bundle):
        if is_dataclass(hints[each.name]):
            yield from _options(hints[each.name])
        else:
            default = Parameter.empty if each.default is MISSING else each.default
            yield Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[each.name])


def _take(hint: Any, name: str, values: Mapping[str, Any]) -> Any:
    """The value of a parameter: a bundle made of the given options, or the option itself."""
    if not is_dataclass(hint):
        return values[name]
    bundle: Any = hint
    hints = _hints(bundle)
    return bundle(**{each.name: _take(hints[each.name], each.name, values) for each in fields(bundle)})


@cache
def _hints(bundle: Hashable) -> dict[str, Any]:
    return get_type_hints(bundle, include_extras=True)
