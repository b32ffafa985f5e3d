"""Features as columns, and their encodings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import shapely
from numpy.typing import NDArray

from headcount.messages.times import iso

PropertyType = Literal["string", "integer", "number", "time"]
Objects = NDArray[np.object_]
#: Replaces null, so that columns can be compared; `Column.known` masks it.
_FILL: dict[PropertyType, Any] = {"string": "", "integer": 0.0, "number": 0.0, "time": 0.0}


class Property(NamedTuple):
    """A property of the features of a collection."""

    name: str
    type: PropertyType
    description: str


@dataclass(frozen=True, slots=True)
class Column:
    """The values of a property: texts, or float64; times are Unix seconds."""

    type: PropertyType
    values: NDArray[Any]
    known: NDArray[np.bool_]  # False: null


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of one collection; all columns have the same length."""

    ids: Sequence[str]
    geometry: Objects  # shapely, WGS 84
    columns: dict[str, Column]
    cursors: Sequence[str]  # where a page begins that starts with this feature

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> FeatureTable:
        """Return some rows."""
        columns = {
            name: replace(column, values=column.values[rows], known=column.known[rows])
            for name, column in self.columns.items()
        }
        ids, cursors = [self.ids[row] for row in rows], [self.cursors[row] for row in rows]
        return FeatureTable(ids, self.geometry[rows], columns, cursors)

    def features(self) -> list[dict[str, Any]]:
        """Return GeoJSON features."""
        geometries = _as_geojson(self.geometry)
        columns = [_texts_and_numbers(column) for column in self.columns.values()]
        rows = zip(*columns, strict=True) if columns else itertools.repeat(())
        return [
            {
                "type": "Feature",
                "id": id_,
                "geometry": geometry,
                "properties": dict(zip(self.columns, values, strict=True)),
            }
            for id_, geometry, values in zip(self.ids, geometries, rows, strict=False)
        ]


def column(type_: PropertyType, values: Sequence[Any]) -> Column:
    """Return a column of values; None is null."""
    known = np.fromiter((value is not None for value in values), np.bool_, len(values))
    filled = [_FILL[type_] if value is None else value for value in values]
    return Column(type_, np.array(filled, object if type_ == "string" else np.float64), known)


def table(
    properties: Sequence[Property], rows: Sequence[Sequence[Any]], geometry: Sequence[Any], ids: Sequence[str]
) -> FeatureTable:
    """Return the table of rows with a value for each property; cursors are the rows' numbers."""
    transposed: Any = zip(*rows, strict=True) if rows else [() for _ in properties]
    columns = {
        property_.name: column(property_.type, values)
        for property_, values in zip(properties, transposed, strict=True)
    }
    shapes = np.empty(len(ids), object)
    shapes[:] = list(geometry)
    return FeatureTable(ids, shapes, columns, [f"{n}.0" for n in range(len(ids))])


def concatenated(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Return the rows of one or more tables with the same columns."""
    first = tables[0]
    columns = {
        name: Column(
            column.type,
            np.concatenate([each.columns[name].values for each in tables]),
            np.concatenate([each.columns[name].known for each in tables]),
        )
        for name, column in first.columns.items()
    }
    return FeatureTable(
        [id_ for each in tables for id_ in each.ids],
        np.concatenate([each.geometry for each in tables]),
        columns,
        [cursor for each in tables for cursor in each.cursors],
    )


def _as_geojson(geometry: Objects) -> list[msgspec.Raw]:
    """Features often share a geometry, such as the zone of many instants: each is encoded once."""
    encoded: dict[int, msgspec.Raw] = {}
    for shape in geometry:
        if id(shape) not in encoded:
            encoded[id(shape)] = msgspec.Raw(shapely.to_geojson(shape).encode())
    return [encoded[id(shape)] for shape in geometry]


def _texts_and_numbers(column: Column) -> list[Any]:
    match column.type:
        case "time":
            values = [iso(value) for value in column.values.tolist()]
        case "integer":
            values = column.values.astype(np.int64).tolist()
        case _:
            values = column.values.tolist()
    return [value if known else None for value, known in zip(values, column.known.tolist(), strict=True)]
