"""What psycopg 3 does with a server. One function per test of psycopg.rs.

    python psycopg_client.py FUNCTION CONNINFO
"""

import asyncio
import datetime as dt
import random
import sys
import threading
import uuid
from decimal import Decimal

import psycopg
from psycopg.pq import TransactionStatus

ENDLESS = """
    select count(*) from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)
    where (i + j) % 1000003 = 1000002"""

UTC = dt.timezone.utc

# Values whose way to the server and back must change nothing, with the SQL type
# of the parameter.
VALUES = [
    ("boolean", True),
    ("boolean", False),
    ("smallint", -32768),
    ("integer", 2147483647),
    ("integer", -1),
    ("bigint", -9223372036854775808),
    ("real", 1.5),
    ("double precision", 0.1),
    ("double precision", 1e-300),
    ("double precision", float("inf")),
    ("numeric(20,5)", Decimal("123456789012345.67890")),
    ("numeric(4,2)", Decimal("-0.01")),
    ("numeric(38,0)", Decimal("12345678901234567890123456789012345678")),
    ("text", ""),
    ("text", "it's \\ \"quoted\" %s ä€𝄞"),
    ("bytea", b""),
    ("bytea", bytes(range(256))),
    ("date", dt.date(2024, 2, 29)),
    ("date", dt.date(1, 1, 1)),
    ("time", dt.time(23, 59, 59, 999999)),
    ("timestamp", dt.datetime(2024, 2, 29, 12, 30, 15, 123456)),
    ("timestamp", dt.datetime(1900, 1, 1)),
    ("timestamptz", dt.datetime(2024, 7, 1, 12, tzinfo=UTC)),
    ("interval", dt.timedelta(days=3, seconds=4, microseconds=5)),
    ("interval", dt.timedelta(days=-1, hours=-2)),
    ("uuid", uuid.UUID("12345678-9abc-def0-8123-456789abcdef")),
    ("integer[]", [1, -2, 3]),
    ("integer[]", [1, None, 3]),
    ("text[]", ["a", "b,c", 'd"e', "", "NULL", "ä"]),
    ("double precision[]", [0.5, -1.25]),
    ("integer", None),
    ("text", None),
]


def session_facts(conn):
    assert conn.info.encoding == "utf-8", conn.info.encoding
    assert conn.info.server_version >= 140000, conn.info.server_version
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.info.parameter_status("integer_datetimes") == "on"
    conn.execute("set application_name = 'facts'")
    assert conn.info.parameter_status("application_name") == "facts"
    assert conn.info.backend_pid != 0


def values(conn, binary):
    mark = "%b" if binary else "%t"
    for sql_type, value in VALUES:
        cursor = conn.cursor(binary=binary)
        got = cursor.execute(f"select cast({mark} as {sql_type}) as v", [value]).fetchone()[0]
        assert got == value and type(got) is type(value), (sql_type, value, got)
    got = conn.execute(f"select cast({mark} as double precision)", [float("nan")]).fetchone()[0]
    assert got != got


def values_in_text(conn):
    values(conn, binary=False)


def values_in_binary(conn):
    values(conn, binary=True)


def columns_of_every_type(conn):
    types = [t for t, v in VALUES if v is not None]
    stored = [v for _, v in VALUES if v is not None]
    columns = ", ".join(f"c{i} {t}" for i, t in enumerate(types))
    name = f"psycopg_columns_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} ({columns})")
    marks = ", ".join(["%s"] * len(stored))
    conn.execute(f"insert into {name} values ({marks})", stored)
    for binary in (False, True):
        row = conn.cursor(binary=binary).execute(f"select * from {name}").fetchone()
        for sql_type, want, got in zip(types, stored, row):
            assert got == want and type(got) is type(want), (binary, sql_type, want, got)


def prepared_statements(conn):
    conn.prepare_threshold = 0
    conn.prepared_max = 3
    name = f"psycopg_prepared_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int, t text)")
    for i in range(20):
        conn.execute(f"insert into {name} values (%s, %s)", (i, f"row {i}"))
    # More statements than may stay prepared: the oldest are deallocated.
    for round in range(3):
        for i in range(6):
            got = conn.execute(f"select t, {i} as n from {name} where i = %s", (i,)).fetchone()
            assert got == (f"row {i}", i), got
    assert conn.execute(f"select count(*) from {name}", prepare=True).fetchone() == (20,)
    assert conn.execute(f"select count(*) from {name} where i > %s", (9,), prepare=True).fetchone() == (10,)


def pipeline(conn):
    name = f"psycopg_pipeline_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int)")
    with conn.pipeline() as pipe:
        cursors = [conn.execute("select %s + 1", (i,)) for i in range(100)]
        conn.cursor().executemany(f"insert into {name} values (%s)", [(i,) for i in range(50)])
        count = conn.execute(f"select count(*) from {name}")
        pipe.sync()
        last = conn.execute("select 'last'")
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(1, 101))
    assert count.fetchone() == (50,)
    assert last.fetchone() == ("last",)


def pipeline_with_an_error(conn):
    name = f"psycopg_pipeline_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int primary key)")
    try:
        with conn.pipeline() as pipe:
            conn.execute(f"insert into {name} values (1)")
            pipe.sync()
            conn.execute(f"insert into {name} values (2)")
            conn.execute(f"insert into {name} values (1)")
            conn.execute(f"insert into {name} values (3)")
            pipe.sync()
        raise AssertionError("no error")
    except psycopg.errors.UniqueViolation:
        pass
    # What was up to the first sync is committed, the rest is not.
    assert conn.execute(f"select i from {name}").fetchall() == [(1,)]
    assert conn.info.transaction_status == TransactionStatus.IDLE


def server_side_cursor(conn):
    query = "select i from generate_series(1, 10000) g(i) order by i"
    with conn.transaction(), conn.cursor("portal") as cursor:
        cursor.itersize = 999
        cursor.execute(query)
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany(3) == [(2,), (3,), (4,)]
        assert [row[0] for row in cursor] == list(range(5, 10001))
        assert cursor.fetchone() is None
    with conn.transaction(), conn.cursor("binary_portal", binary=True) as cursor:
        cursor.execute("select i from generate_series(1, %s) g(i) order by i", (5000,))
        rows = []
        while piece := cursor.fetchmany(2048):
            rows += piece
        assert [row[0] for row in rows] == list(range(1, 5001))


def streaming(conn):
    cursor = conn.cursor()
    rows = [row[0] for row in cursor.stream("select i from generate_series(1, 10000) g(i) order by i")]
    assert rows == list(range(1, 10001))
    # Leaving early cancels the rest.
    endless = "select a.i from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)"
    for count, row in enumerate(conn.cursor().stream(endless)):
        if count == 10:
            break
    assert conn.execute("select 1").fetchone() == (1,)


def copy(conn):
    name = f"psycopg_copy_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int, t text, d date, f double precision)")
    rows = [
        (i, random.choice([None, "", "tab\tnew\nline\\", "ä€𝄞", f"row {i}"]), dt.date(2000, 1, 1), i / 8)
        for i in range(5000)
    ]
    cursor = conn.cursor()
    with cursor.copy(f"copy {name} from stdin") as into:
        for row in rows:
            into.write_row(row)
    assert cursor.rowcount == len(rows), cursor.rowcount
    with cursor.copy(f"copy (select * from {name} order by i) to stdout") as out:
        out.set_types(["int4", "text", "date", "float8"])
        assert list(out.rows()) == rows
    with cursor.copy(f"copy {name} (i, t) from stdin (format csv)") as into:
        into.write("10001,plain\n10002,")
        into.write('"quo""ted"\n')
    got = conn.execute(f"select t from {name} where i > 10000 order by i").fetchall()
    assert got == [("plain",), ('quo"ted',)], got
    try:
        with cursor.copy(f"copy {name} from stdin") as into:
            into.write_row((1, "x", dt.date(2000, 1, 1), 0.0))
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    try:
        with cursor.copy(f"copy {name} (i) from stdin") as into:
            into.write("no number\n")
        raise AssertionError("no error")
    except psycopg.errors.InvalidTextRepresentation:
        pass
    assert conn.execute(f"select count(*) from {name}").fetchone() == (len(rows) + 2,)


def transactions(conn):
    name = f"psycopg_tx_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int primary key)")
    with conn.transaction():
        conn.execute(f"insert into {name} values (1)")
        assert conn.info.transaction_status == TransactionStatus.INTRANS
    try:
        with conn.transaction():
            conn.execute(f"insert into {name} values (2)")
            conn.execute(f"insert into {name} values (1)")
    except psycopg.errors.UniqueViolation:
        pass
    with conn.transaction(force_rollback=True):
        conn.execute(f"insert into {name} values (3)")
    assert conn.execute(f"select i from {name}").fetchall() == [(1,)]

    conn.autocommit = False
    conn.execute(f"insert into {name} values (4)")
    try:
        conn.execute("select nosuch")
    except psycopg.errors.UndefinedColumn:
        assert conn.info.transaction_status == TransactionStatus.INERROR
    try:
        conn.execute("select 1")
        raise AssertionError("no error")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    conn.rollback()
    conn.execute(f"insert into {name} values (5)")
    conn.commit()
    assert conn.execute(f"select i from {name} order by i").fetchall() == [(1,), (5,)]
    conn.rollback()


def errors(conn):
    for sql, error in [
        ("select * from nosuch", psycopg.errors.UndefinedTable),
        ("select nosuch", psycopg.errors.UndefinedColumn),
        ("select nosuch(1)", psycopg.errors.UndefinedFunction),
        ("selec 1", psycopg.errors.SyntaxError),
        ("select cast('x' as int)", psycopg.errors.InvalidTextRepresentation),
    ]:
        try:
            conn.execute(sql)
            raise AssertionError(f"{sql} did not fail")
        except psycopg.Error as e:
            assert type(e) is error, (sql, e)
            assert e.diag.severity == "ERROR", sql
    try:
        conn.execute("select 'äöü', nosuch, %s", (1,))
    except psycopg.Error as e:
        assert e.diag.statement_position == "15", e.diag.statement_position
    notices = []
    conn.add_notice_handler(lambda notice: notices.append(notice.sqlstate))
    conn.execute("commit")
    assert notices == ["25P01"], notices


def cancel(conn):
    methods = [conn.cancel_safe] if psycopg.capabilities.has_cancel_safe() else []
    for method in [*methods, conn.cancel] * 2:
        stopped = threading.Event()

        def press():
            while not stopped.wait(0.1):
                method()

        thread = threading.Thread(target=press)
        thread.start()
        try:
            conn.execute(ENDLESS)
            raise AssertionError("not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        finally:
            stopped.set()
            thread.join()
        assert conn.execute("select 1").fetchone() == (1,)


def execute_many(conn):
    name = f"psycopg_many_{uuid.uuid4().hex}"
    conn.execute(f"create table {name} (i int, t text)")
    cursor = conn.cursor()
    cursor.executemany(f"insert into {name} values (%s, %s)", [(i, str(i)) for i in range(200)])
    assert cursor.rowcount == 200, cursor.rowcount
    cursor.executemany(f"delete from {name} where i = %s returning t", [(1,), (2,)], returning=True)
    got = []
    while True:
        got += cursor.fetchall()
        if not cursor.nextset():
            break
    assert got == [("1",), ("2",)], got
    cursor.execute("select 1 as a; select 'two' as b, 3 as c", prepare=False)
    assert cursor.fetchall() == [(1,)] and cursor.nextset() and cursor.fetchall() == [("two", 3)]


def asynchronous(conn):
    async def work():
        async with await psycopg.AsyncConnection.connect(sys.argv[2], autocommit=True) as one:
            async with await psycopg.AsyncConnection.connect(sys.argv[2], autocommit=True) as two:
                cursors = await asyncio.gather(one.execute("select 1"), two.execute("select 2"))
                assert [await cursor.fetchone() for cursor in cursors] == [(1,), (2,)]
                task = asyncio.create_task(one.execute(ENDLESS))
                await two.execute("select 3")
                # Cancelling the task cancels the query.
                while not task.done():
                    await asyncio.sleep(0.1)
                    task.cancel()
                assert await (await two.execute("select 4")).fetchone() == (4,)

    asyncio.run(work())


if __name__ == "__main__":
    with psycopg.connect(sys.argv[2], autocommit=True) as connection:
        globals()[sys.argv[1]](connection)
