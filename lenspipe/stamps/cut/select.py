"""Which rows of a table, in words: ``score > 0.9 and mag_i < 21``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.compute as pc

from lenspipe.errors import ConfigError

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_COMPUTED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def selection(text: str, columns: Sequence[str]) -> pc.Expression:
    """
    A condition on the columns of a table, for `pyarrow.Table.filter`; rows with a null in it are not selected.

    Parameters
    ----------
    text : str
        Columns, numbers and quoted words with ``< <= > >= == !=``, ``+ - * /``, ``and or not``, ``in (…)`` and
        brackets; comparisons may be chained.
    columns : sequence of str
        Columns of the table.

    Raises
    ------
    ConfigError
        The text is not such a condition, or names a column that is not there.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"score": [0.2, 0.95, 0.99], "mag_i": [19.0, 20.0, None]})
    >>> rows.filter(selection("score > 0.9 and 18 < mag_i < 21", rows.column_names))["score"].to_pylist()
    [0.95]
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"the selection cannot be read: {error.msg}", select=text) from None
    if not isinstance(tree, ast.Compare | ast.BoolOp | ast.UnaryOp):
        raise ConfigError("a selection compares columns, such as score > 0.9 and mag_i < 21", select=text)
    return _Reader(text, tuple(columns)).read(tree)


class _Reader:
    def __init__(self, text: str, columns: tuple[str, ...]) -> None:
        self._text, self._columns = text, columns

    def read(self, node: ast.expr) -> Any:
        """Arrow expression of a node of the syntax tree."""
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            return pc.scalar(node.value)
        if isinstance(node, ast.BoolOp):
            values = [self.read(value) for value in node.values]
            both = isinstance(node.op, ast.And)
            whole = values[0]
            for value in values[1:]:
                whole = whole & value if both else whole | value
            return whole
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.read(node.operand)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return pc.scalar(0) - self.read(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
            return _COMPUTED[type(node.op)](self.read(node.left), self.read(node.right))
        if isinstance(node, ast.Compare):
            return self._compared(node)
        raise ConfigError(
            "a selection has columns, numbers, quoted words, comparisons, + - * /, and, or, not, in",
            select=self._text,
            got=ast.unparse(node),
        )

    def _compared(self, node: ast.Compare) -> Any:
        whole, left = None, node.left
        for how, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(how, ast.In | ast.NotIn) and isinstance(right, ast.Tuple | ast.List):
                one = self.read(left).isin([ast.literal_eval(item) for item in right.elts])
                one = ~one if isinstance(how, ast.NotIn) else one
            elif type(how) in _COMPARED:
                one = _COMPARED[type(how)](self.read(left), self.read(right))
            else:
                raise ConfigError("not a comparison of a selection", select=self._text, got=ast.unparse(node))
            whole, left = one if whole is None else whole & one, right
        return whole

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            raise ConfigError(
                "no such column to select by", select=self._text, column=name, known=" ".join(self._columns)
            )
        return pc.field(name)
