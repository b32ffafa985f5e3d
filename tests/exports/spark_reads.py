"""Read Parquet files with Spark: `python spark_reads.py STORED.parquet… -- V1.parquet V2.parquet`; prints JSON.

It runs in a process of its own, whose PYTHONPATH has pyspark.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pyspark.sql import SparkSession, functions


def main() -> None:
    """Read the files, and print their rows."""
    split = sys.argv.index("--")
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    try:
        stored = spark.read.parquet(*sys.argv[1:split])
        micros = functions.unix_micros(functions.col("t")).alias("t_us")
        rows = stored.select(micros, "device", "kind", "lat", "lon", "site", "verdict").collect()
        found: dict[str, Any] = {"stored": [[str(value) for value in row] for row in rows]}
        for name, path in zip(("1.1", "2.0"), sys.argv[split + 1 :], strict=True):
            frame = spark.read.parquet(path)
            found[name] = {"type": dict(frame.dtypes)["geometry"]}
            if name == "1.1":
                some = frame.where("bbox.xmin >= -8.575 and bbox.xmax <= -8.57")
                found[name]["points"] = [[row.device, bytes(row.geometry).hex()] for row in some.collect()]
            else:
                some = frame.selectExpr("device", "st_asbinary(geometry) as wkb")
                found[name]["points"] = [[row.device, bytes(row.wkb).hex()] for row in some.collect()]
        print(json.dumps(found))
    finally:
        spark.stop()


main()
