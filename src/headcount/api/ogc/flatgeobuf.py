"""FlatGeobuf, written by GDAL through pyogrio of the extra `analysis`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import shapely

from headcount.api.ogc.feature_table import FeatureTable
from headcount.api.schemas.problems import FORMAT_UNAVAILABLE, ProblemError


def encode(features: FeatureTable) -> bytes:
    """Return features as FlatGeobuf with a spatial index; may block.

    Raises:
        ProblemError: `format-unavailable`, pyogrio is not installed.
    """
    try:
        import pyogrio.raw  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ProblemError(FORMAT_UNAVAILABLE, FORMAT_UNAVAILABLE.meaning) from error
    fields = ["id", *features.columns]
    data: list[Any] = [np.array(features.ids, object)]
    masks: list[Any] = [None]
    for column in features.columns.values():
        values = column.values
        if column.type == "integer":
            values = values.astype(np.int64)
        elif column.type == "time":
            values = np.round(values * 1000).astype("datetime64[ms]")
        data.append(values)
        masks.append(~column.known)
    times = [name for name, column in features.columns.items() if column.type == "time"]
    file = io.BytesIO()
    pyogrio.raw.write(
        file,
        geometry=shapely.to_wkb(features.geometry),
        field_data=data,
        fields=fields,
        field_mask=masks,
        driver="FlatGeobuf",
        geometry_type="Unknown",
        crs="OGC:CRS84",
        # GDAL's 100 is UTC
        gdal_tz_offsets={name: np.full(len(features), 100, np.int8) for name in times},
    )
    return file.getvalue()
