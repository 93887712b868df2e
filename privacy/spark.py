"""Spark as the engine of the measures (`[privacy] engine = "spark"`, extra `spark`, Java 17 or later).

Files are read, judged and settled by this process, partition by partition (`privacy.load`); the measures of each
partition run on the cluster, or on this machine where no cluster is configured. What Spark writes for itself (shuffle,
spill, transfer) is encrypted under a key that it draws for the session. Where the cluster is, is Spark's own
configuration (`spark-defaults.conf`, SPARK_CONF_DIR): there network encryption must be switched on (docs/privacy.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import WorkspaceError
from privacy.people import SCHEMAS, Statement

_ARROW = {"int64": pa.int64(), "string": pa.string()}
_SETTINGS = {
    "spark.io.encryption.enabled": "true",  # shuffle, spill and what this process hands over
    "spark.io.encryption.keySizeBits": "256",
    "spark.sql.ansi.enabled": "true",  # an overflow is an error, as on DuckDB
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",  # it shows statements and row counts to whoever can reach the port
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "500000",
}
_LOCAL = {
    "spark.master": "local[*]",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",  # compiling costs more than it saves at the size of one machine
    "spark.sql.adaptive.enabled": "false",
}


@dataclass(frozen=True, slots=True)
class SparkEngine:
    """A Spark session, as `privacy.people.Engine`."""

    session: Any  # pyspark.sql.SparkSession

    def show(self, tables: Mapping[str, pa.Table]) -> None:
        """See `Engine`."""
        for name, table in tables.items():
            schema = pa.schema([(column, _ARROW[kind]) for column, kind in SCHEMAS[name].items()])
            frame = self.session.createDataFrame(table.select(schema.names).cast(schema))
            frame.createOrReplaceTempView(name)

    def keep(self, name: str, statement: Statement) -> None:
        """See `Engine`."""
        frame = self.session.sql(statement.spark).cache()
        frame.count()  # evaluated once, here
        frame.createOrReplaceTempView(name)

    def drop(self, name: str) -> None:
        """See `Engine`."""
        self.session.table(name).unpersist(True)
        self.session.catalog.dropTempView(name)

    def rows(self, statement: Statement) -> Mapping[str, np.ndarray]:
        """See `Engine`."""
        table = self.session.sql(statement.spark).toArrow()
        return {name: table[name].to_numpy() for name in table.column_names}


@contextmanager
def spark_engine(folder: Path) -> Iterator[SparkEngine]:
    """A session whose own files lie in `folder`. Raises WorkspaceError when Spark or Java is missing.

    A session that runs already is used, if it encrypts what it writes, and left running.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise WorkspaceError(
            'privacy.engine = "spark" needs the extra: pip install "plumbline[spark]"; or set it to "duckdb", which '
            "gives the same numbers."
        ) from error
    running = SparkSession.getActiveSession()
    if running is not None:
        if running.sparkContext.getConf().get("spark.io.encryption.enabled", "false") != "true":
            raise WorkspaceError(
                "the running Spark session writes plain files; set spark.io.encryption.enabled = true."
            )
        yield SparkEngine(running)
        return
    builder = SparkSession.builder.appName("plumbline").config("spark.local.dir", str(folder))
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    try:
        session = _started(builder)
    except (PySparkException, RuntimeError, OSError) as error:
        raise WorkspaceError(
            f'privacy.engine = "spark": Spark did not start ({str(error).splitlines()[0][:120]}). It needs Java 17 or '
            'later (JAVA_HOME); or set the engine to "duckdb", which gives the same numbers.'
        ) from error
    try:
        yield SparkEngine(session)
    finally:
        session.stop()


def _started(builder: Any) -> Any:
    from pyspark import SparkConf

    if SparkConf().get("spark.master") is None:  # no cluster is configured
        for key, value in _LOCAL.items():
            builder = builder.config(key, value)
    return builder.getOrCreate()
