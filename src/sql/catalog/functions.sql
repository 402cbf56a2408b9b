-- What PostgreSQL's functions about the catalog answer. `@` is the schema of all this.

CREATE MACRO @quote_literal(literal_) AS '''' || replace(literal_::VARCHAR, '''', '''''') || '''';
CREATE MACRO @quote_nullable(given) AS coalesce(@quote_literal(given), 'NULL');
CREATE MACRO @quote_ident(ident_) AS CASE WHEN regexp_full_match(ident_, '[a-z_][a-z0-9_]*') AND NOT contains('
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case 
    cast char character check coalesce collate collation column concurrently constraint create cross 
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec 
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign 
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect 
    interval into is isnull join lateral leading least left like limit localtime localtimestamp national natural 
    nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay 
    placing position precision primary real references returning right row select session_user setof similar 
    smallint some substring symmetric table tablesample then time timestamp to trailing treat trim true union 
    unique user using values varchar variadic verbose when where window with ', ' ' || ident_ || ' ')
    THEN ident_ ELSE '"' || replace(ident_, '"', '""') || '"' END;

CREATE MACRO @session_user_name() AS (SELECT max("user") FROM duckgres_session());

-- Types: DuckDB's name of a type, PostgreSQL's oid and back.

CREATE MACRO @scalar_type_oid(t) AS CASE
    WHEN t = 'BOOLEAN' THEN 16 WHEN t = 'BLOB' THEN 17 WHEN t IN ('BIGINT', 'UINTEGER') THEN 20
    WHEN t IN ('SMALLINT', 'TINYINT', 'UTINYINT') THEN 21 WHEN t IN ('INTEGER', 'USMALLINT') THEN 23
    WHEN t = 'VARCHAR' THEN 1043 WHEN t = 'FLOAT' THEN 700 WHEN t = 'DOUBLE' THEN 701
    WHEN t = 'DATE' THEN 1082 WHEN t IN ('TIME', 'TIME_NS') THEN 1083
    WHEN t IN ('TIMESTAMP', 'TIMESTAMP_S', 'TIMESTAMP_MS', 'TIMESTAMP_NS') THEN 1114
    WHEN t = 'TIMESTAMP WITH TIME ZONE' THEN 1184 WHEN t = 'TIME WITH TIME ZONE' THEN 1266
    WHEN t = 'INTERVAL' THEN 1186 WHEN t = 'BIT' THEN 1562 WHEN t = 'UUID' THEN 2950
    WHEN starts_with(t, 'DECIMAL') OR t IN ('HUGEINT', 'UHUGEINT', 'UBIGINT', 'BIGNUM') THEN 1700
    WHEN t = 'JSON' OR starts_with(t, 'STRUCT') OR starts_with(t, 'MAP') OR starts_with(t, 'UNION') THEN 114
    ELSE 25 END;

CREATE VIEW @enum_types AS
    SELECT type_oid, type_name, schema_oid, schema_name, labels, comment,
           'ENUM(' || array_to_string([@quote_literal(l) FOR l IN labels], ', ') || ')' AS written
    FROM (SELECT *, NULL FROM duckdb_types() WHERE NOT internal AND logical_type = 'ENUM' AND database_name = current_database());

CREATE VIEW @builtin_types AS
    SELECT oid::BIGINT AS oid, typname, display, typlen::SMALLINT AS typlen, typbyval, typcategory, typispreferred,
           typarray::BIGINT AS typarray, typalign, typstorage, typcollation::BIGINT AS typcollation
    FROM (VALUES
        (16, 'bool', 'boolean', 1, true, 'B', true, 1000, 'c', 'p', 0),
        (17, 'bytea', 'bytea', -1, false, 'U', false, 1001, 'i', 'x', 0),
        (18, 'char', '"char"', 1, true, 'Z', false, 1002, 'c', 'p', 0),
        (19, 'name', 'name', 64, false, 'S', false, 1003, 'c', 'p', 950),
        (20, 'int8', 'bigint', 8, true, 'N', false, 1016, 'd', 'p', 0),
        (21, 'int2', 'smallint', 2, true, 'N', false, 1005, 's', 'p', 0),
        (22, 'int2vector', 'int2vector', -1, false, 'A', false, 1006, 'i', 'p', 0),
        (23, 'int4', 'integer', 4, true, 'N', false, 1007, 'i', 'p', 0),
        (24, 'regproc', 'regproc', 4, true, 'N', false, 1008, 'i', 'p', 0),
        (25, 'text', 'text', -1, false, 'S', true, 1009, 'i', 'x', 100),
        (26, 'oid', 'oid', 4, true, 'N', true, 1028, 'i', 'p', 0),
        (30, 'oidvector', 'oidvector', -1, false, 'A', false, 1013, 'i', 'p', 0),
        (114, 'json', 'json', -1, false, 'U', false, 199, 'i', 'x', 0),
        (700, 'float4', 'real', 4, true, 'N', false, 1021, 'i', 'p', 0),
        (701, 'float8', 'double precision', 8, true, 'N', true, 1022, 'd', 'p', 0),
        (705, 'unknown', 'unknown', -2, false, 'X', false, 0, 'c', 'p', 0),
        (1042, 'bpchar', 'character', -1, false, 'S', false, 1014, 'i', 'x', 100),
        (1043, 'varchar', 'character varying', -1, false, 'S', false, 1015, 'i', 'x', 100),
        (1082, 'date', 'date', 4, true, 'D', false, 1182, 'i', 'p', 0),
        (1083, 'time', 'time without time zone', 8, true, 'D', false, 1183, 'd', 'p', 0),
        (1114, 'timestamp', 'timestamp without time zone', 8, true, 'D', false, 1115, 'd', 'p', 0),
        (1184, 'timestamptz', 'timestamp with time zone', 8, true, 'D', true, 1185, 'd', 'p', 0),
        (1186, 'interval', 'interval', 16, false, 'T', true, 1187, 'd', 'p', 0),
        (1266, 'timetz', 'time with time zone', 12, false, 'D', false, 1270, 'd', 'p', 0),
        (1560, 'bit', 'bit', -1, false, 'V', false, 1561, 'i', 'x', 0),
        (1562, 'varbit', 'bit varying', -1, false, 'V', true, 1563, 'i', 'x', 0),
        (1700, 'numeric', 'numeric', -1, false, 'N', false, 1231, 'i', 'm', 0),
        (2205, 'regclass', 'regclass', 4, true, 'N', true, 2210, 'i', 'p', 0),
        (2206, 'regtype', 'regtype', 4, true, 'N', true, 2211, 'i', 'p', 0),
        (2249, 'record', 'record', -1, false, 'P', false, 2287, 'd', 'x', 0),
        (2278, 'void', 'void', 4, true, 'P', false, 0, 'i', 'p', 0),
        (2950, 'uuid', 'uuid', 16, false, 'U', false, 2951, 'c', 'p', 0),
        (3802, 'jsonb', 'jsonb', -1, false, 'U', false, 3807, 'i', 'x', 0)
    ) t(oid, typname, display, typlen, typbyval, typcategory, typispreferred, typarray, typalign, typstorage, typcollation);

CREATE MACRO @enum_array_oid(element) AS element + 536870912;

-- The oid of a column's type as DuckDB writes it; an enum is found by its labels.
CREATE MACRO @type_oid(t) AS (SELECT CASE
        WHEN _e IS NOT NULL THEN CASE WHEN _listed THEN @enum_array_oid(_e) ELSE _e END
        WHEN _listed THEN CASE _s WHEN 16 THEN 1000 WHEN 17 THEN 1001 WHEN 20 THEN 1016 WHEN 21 THEN 1005
            WHEN 23 THEN 1007 WHEN 1043 THEN 1015 WHEN 700 THEN 1021 WHEN 701 THEN 1022 WHEN 1082 THEN 1182
            WHEN 1083 THEN 1183 WHEN 1114 THEN 1115 WHEN 1184 THEN 1185 WHEN 1266 THEN 1270 WHEN 1186 THEN 1187
            WHEN 1562 THEN 1563 WHEN 2950 THEN 2951 WHEN 1700 THEN 1231 WHEN 114 THEN 199 ELSE 1009 END
        ELSE _s END::BIGINT
    FROM (SELECT @scalar_type_oid(regexp_replace(t, '(\[\d*\])+$', '')) AS _s, ends_with(t, ']') AS _listed,
        (SELECT min(type_oid) FROM @enum_types WHERE written = regexp_replace(t, '(\[\d*\])+$', '')) AS _e));

CREATE MACRO @type_modifier(t) AS CASE WHEN starts_with(t, 'DECIMAL(')
    THEN (regexp_extract(t, '\((\d+)', 1)::INTEGER << 16 | regexp_extract(t, ',(\d+)\)', 1)::INTEGER) + 4
    ELSE -1 END;

CREATE VIEW @type_names AS
    SELECT oid, display, '' AS suffix, oid AS element FROM @builtin_types
    UNION ALL SELECT typarray, display, '[]', oid FROM @builtin_types WHERE typarray <> 0
    UNION ALL SELECT type_oid, @quote_ident(type_name), '', type_oid FROM @enum_types
    UNION ALL SELECT @enum_array_oid(type_oid), @quote_ident(type_name), '[]', type_oid FROM @enum_types;

-- Under names that no argument has, see lookups.sql.
CREATE VIEW @type_name_ AS SELECT oid AS _oid, display AS _display, suffix AS _suffix, element AS _element FROM @type_names;
CREATE MACRO @format_type(type_, modifier_) AS CASE WHEN type_ IS NULL THEN NULL ELSE coalesce(
    (SELECT max(_display || CASE
        WHEN modifier_ IS NULL OR modifier_::INTEGER < 0 THEN ''
        WHEN _element = 1700 THEN '(' || ((modifier_::INTEGER - 4) >> 16) || ',' || ((modifier_::INTEGER - 4) & 65535) || ')'
        WHEN _element IN (1042, 1043) THEN '(' || (modifier_::INTEGER - 4) || ')'
        ELSE '' END || _suffix) FROM @type_name_ WHERE _oid = type_::BIGINT),
    CASE WHEN type_::BIGINT = 0 THEN '-' ELSE '???' END) END;

-- Names.

CREATE MACRO @name_part(name_) AS CASE WHEN name_ IS NULL OR name_ = '' THEN NULL
    WHEN starts_with(name_, '"') THEN replace(name_[2:-2], '""', '"') ELSE lower(name_) END;
CREATE MACRO @name_schema(name_) AS
    @name_part(regexp_extract(name_, '^("(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)$', 1));
CREATE MACRO @name_object(name_) AS
    @name_part(regexp_extract(name_, '^(?:("(?:[^"]|"")*"|[^".]+)\.)?("(?:[^"]|"")*"|[^".]+)$', 2));
-- By its whole name: within these catalogs the short one is the macro below.
CREATE MACRO @search_path() AS
    CASE WHEN len(system.main.current_schemas(false)) = 0 THEN [coalesce(current_schema(), 'main')] ELSE system.main.current_schemas(false) END;
CREATE MACRO @is_visible_schema(schema_) AS
    schema_ IN ('pg_catalog', 'pg_temp') OR list_contains(@search_path(), schema_);
CREATE MACRO @current_schemas(implicit) AS
    CASE WHEN implicit THEN list_concat(['pg_catalog'], @search_path()) ELSE @search_path() END;

CREATE MACRO @"current_user"() AS @session_user_name();
CREATE MACRO @"session_user"() AS @session_user_name();
CREATE MACRO @"current_role"() AS @session_user_name();
CREATE MACRO @"user"() AS @session_user_name();
CREATE MACRO @"current_catalog"() AS current_database();
CREATE MACRO @version() AS (SELECT 'PostgreSQL 15.13 (duckgres ~VERSION~, DuckDB ' || library_version || ')' FROM pragma_version());
