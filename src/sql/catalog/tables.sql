-- pg_catalog's tables that have rows. Oids are DuckDB's own where it has any; for
-- constraints, defaults and arrays of enums they are computed from them.

CREATE VIEW @pg_namespace AS
    SELECT CASE database_name WHEN 'temp' THEN 99 ELSE oid END AS oid,
           CASE database_name WHEN 'temp' THEN 'pg_temp' ELSE schema_name END AS nspname,
           10::BIGINT AS nspowner, NULL::VARCHAR[] AS nspacl, comment
    FROM duckdb_schemas() WHERE database_name IN (current_database(), 'temp') AND schema_name NOT IN ('pg_catalog', 'information_schema')
    UNION ALL VALUES (11::BIGINT, 'pg_catalog', 10::BIGINT, NULL::VARCHAR[], 'system catalog schema'),
                     (13::BIGINT, 'information_schema', 10::BIGINT, NULL::VARCHAR[], NULL);

CREATE VIEW @namespace_of AS SELECT oid AS schema_oid,
        CASE database_name WHEN 'temp' THEN 99 ELSE oid END AS namespace
    FROM duckdb_schemas() WHERE database_name IN (current_database(), 'temp');

-- Numbered within their table, whatever other tables there are.
CREATE VIEW @constraints AS
    SELECT 1073741824 + table_oid * 256 + position AS oid, * FROM (
        SELECT *, row_number() OVER (PARTITION BY table_oid ORDER BY constraint_index) AS position,
            CASE constraint_type
                WHEN 'PRIMARY KEY' THEN table_name || '_pkey'
                WHEN 'UNIQUE' THEN table_name || '_' || array_to_string(constraint_column_names, '_') || '_key'
                WHEN 'FOREIGN KEY' THEN table_name || '_' || array_to_string(constraint_column_names, '_') || '_fkey'
                ELSE constraint_name END AS name
        FROM duckdb_constraints() WHERE database_name IN (current_database(), 'temp'));

-- By itself, because DuckDB allows an expression no more than so many of these.
CREATE VIEW @constraint_columns AS
    SELECT oid, array_to_string([@quote_ident(k) FOR k IN constraint_column_names], ', ') AS quoted_columns,
           array_to_string([@quote_ident(k) FOR k IN referenced_column_names], ', ') AS quoted_referenced FROM @constraints;

CREATE VIEW @columns_of AS
    SELECT table_oid, list(column_name ORDER BY column_index) AS columns FROM duckdb_columns()
    WHERE database_name IN (current_database(), 'temp') GROUP BY table_oid;

-- The indexes that were made as such, and those that keep keys unique.
CREATE VIEW @indexes AS
    SELECT index_oid AS oid, index_name AS name, schema_oid, schema_name, i.table_oid, table_name, is_unique, is_primary, comment,
           [coalesce(list_position(columns, trim(e, '"')), 0)::SMALLINT FOR e IN expressions::VARCHAR[]] AS keys,
           [regexp_replace(e, '^\((\w+\(.*\))\)$', '\1') FOR e IN expressions::VARCHAR[]] AS items
    FROM duckdb_indexes() i JOIN @columns_of USING (table_oid) WHERE database_name IN (current_database(), 'temp')
    UNION ALL
    SELECT oid + 268435456, name, schema_oid, schema_name, table_oid, table_name, true, constraint_type = 'PRIMARY KEY', NULL,
           [(c + 1)::SMALLINT FOR c IN constraint_column_indexes], [@quote_ident(c) FOR c IN constraint_column_names]
    FROM @constraints WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE');

CREATE VIEW @system_relations AS SELECT oid::BIGINT AS oid, relname FROM (VALUES
    (1213, 'pg_tablespace'), (1247, 'pg_type'), (1249, 'pg_attribute'), (1255, 'pg_proc'), (1259, 'pg_class'),
    (1260, 'pg_authid'), (1261, 'pg_auth_members'), (1262, 'pg_database'), (1417, 'pg_foreign_server'), (2224, 'pg_sequence'),
    (2328, 'pg_foreign_data_wrapper'), (2396, 'pg_shdescription'), (2600, 'pg_aggregate'), (2601, 'pg_am'), (2604, 'pg_attrdef'),
    (2605, 'pg_cast'), (2606, 'pg_constraint'), (2607, 'pg_conversion'), (2608, 'pg_depend'), (2609, 'pg_description'),
    (2610, 'pg_index'), (2611, 'pg_inherits'), (2612, 'pg_language'), (2615, 'pg_namespace'), (2616, 'pg_opclass'),
    (2617, 'pg_operator'), (2618, 'pg_rewrite'), (2620, 'pg_trigger'), (2753, 'pg_opfamily'), (2995, 'pg_largeobject_metadata'),
    (3079, 'pg_extension'), (3118, 'pg_foreign_table'), (3256, 'pg_policy'), (3381, 'pg_statistic_ext'), (3456, 'pg_collation'),
    (3466, 'pg_event_trigger'), (3501, 'pg_enum'), (3541, 'pg_range'), (3600, 'pg_ts_dict'), (3601, 'pg_ts_parser'),
    (3602, 'pg_ts_config'), (3764, 'pg_ts_template')) t(oid, relname);

-- The tables on either side; psql looks for the keys only where there are triggers.
CREATE VIEW @foreign_keys AS
    SELECT schema_oid, unnest([table_name, referenced_table]) AS table_name FROM duckdb_constraints()
    WHERE constraint_type = 'FOREIGN KEY' AND database_name IN (current_database(), 'temp');

CREATE VIEW @relations AS
    SELECT table_oid AS oid, table_name AS relname, namespace AS relnamespace, 'r' AS relkind, estimated_size AS reltuples,
           column_count AS relnatts, index_count > 0 OR has_primary_key AS relhasindex, check_constraint_count AS relchecks,
           temporary, 2 AS relam, comment, (schema_oid, table_name) IN (SELECT (schema_oid, table_name) FROM @foreign_keys) AS has_foreign_key
    FROM duckdb_tables() JOIN @namespace_of USING (schema_oid) WHERE NOT internal
    UNION ALL
    SELECT view_oid, view_name, namespace, 'v', 0, column_count, false, 0, temporary, 0, comment, false
    FROM duckdb_views() JOIN @namespace_of USING (schema_oid) WHERE NOT internal
    UNION ALL
    SELECT sequence_oid, sequence_name, namespace, 'S', 1, 3, false, 0, temporary, 0, comment, false
    FROM duckdb_sequences() JOIN @namespace_of USING (schema_oid)
    UNION ALL
    SELECT oid, name, namespace, 'i', 0, len(keys), false, 0, false, 403, comment, false
    FROM @indexes JOIN @namespace_of USING (schema_oid)
    UNION ALL
    SELECT oid, relname, 11, 'r', 0, 0, false, 0, false, 2, NULL, false FROM @system_relations;

CREATE VIEW @pg_class AS
    SELECT oid, relname, relnamespace::BIGINT AS relnamespace, 0::BIGINT AS reltype, 0::BIGINT AS reloftype, 10::BIGINT AS relowner,
           relam::BIGINT AS relam, oid AS relfilenode, 0::BIGINT AS reltablespace, 0 AS relpages, reltuples::FLOAT AS reltuples,
           0 AS relallvisible, 0::BIGINT AS reltoastrelid, relhasindex, false AS relisshared,
           CASE WHEN temporary THEN 't' ELSE 'p' END AS relpersistence, relkind, relnatts::SMALLINT AS relnatts,
           relchecks::SMALLINT AS relchecks, false AS relhasrules, has_foreign_key AS relhastriggers, false AS relhassubclass,
           false AS relrowsecurity, false AS relforcerowsecurity, true AS relispopulated, 'd' AS relreplident,
           false AS relispartition, 0::BIGINT AS relrewrite, 0::BIGINT AS relfrozenxid, 0::BIGINT AS relminmxid,
           NULL::VARCHAR[] AS relacl, NULL::VARCHAR[] AS reloptions, NULL::VARCHAR AS relpartbound
    FROM @relations;

CREATE VIEW @attributes AS
    SELECT table_oid AS attrelid, column_name AS attname, @type_oid(data_type) AS atttypid, column_index AS attnum,
           @type_modifier(regexp_replace(data_type, '(\[\d*\])+$', '')) AS atttypmod, NOT is_nullable AS attnotnull,
           column_default, data_type, (length(data_type) - length(replace(data_type, ']', ''))) AS attndims
    FROM duckdb_columns() WHERE database_name IN (current_database(), 'temp') AND NOT internal
    UNION ALL
    SELECT oid, CASE WHEN keys[n] = 0 THEN 'expr' ELSE trim(items[n], '"') END,
           CASE WHEN keys[n] = 0 THEN 25 ELSE (SELECT @type_oid(max(data_type)) FROM duckdb_columns() c
               WHERE c.table_oid = i.table_oid AND c.column_index = i.keys[n]) END,
           n, -1, false, NULL, 'VARCHAR', 0
    FROM (SELECT *, unnest(range(1, len(keys) + 1)) AS n FROM @indexes) i;

CREATE VIEW @pg_attribute AS
    SELECT attrelid, attname, atttypid, -1 AS attstattarget, coalesce(t.typlen, -1)::SMALLINT AS attlen, attnum::SMALLINT AS attnum,
           attndims::INTEGER AS attndims, -1 AS attcacheoff, atttypmod, coalesce(typbyval, false) AS attbyval,
           coalesce(typalign, 'i') AS attalign, coalesce(typstorage, 'x') AS attstorage, '' AS attcompression, attnotnull,
           column_default IS NOT NULL AS atthasdef, false AS atthasmissing, '' AS attidentity, '' AS attgenerated,
           false AS attisdropped, true AS attislocal, 0 AS attinhcount, coalesce(typcollation, 0) AS attcollation,
           NULL::VARCHAR[] AS attacl, NULL::VARCHAR[] AS attoptions, NULL::VARCHAR[] AS attfdwoptions
    FROM @attributes LEFT JOIN @builtin_types t ON t.oid = atttypid;

CREATE VIEW @pg_attrdef AS
    SELECT attrelid * 2048 + attnum AS oid, attrelid AS adrelid, attnum::SMALLINT AS adnum,
           CASE WHEN starts_with(column_default, '''') THEN column_default || '::' || @format_type(atttypid, atttypmod)
                ELSE regexp_replace(column_default, '^nextval\((''.*'')\)$', 'nextval(\1::regclass)') END AS adbin
    FROM @attributes WHERE column_default IS NOT NULL;

CREATE VIEW @pg_type AS
    SELECT oid, typname, 11::BIGINT AS typnamespace, 10::BIGINT AS typowner, typlen, typbyval,
           CASE WHEN oid IN (705, 2249, 2278) THEN 'p' ELSE 'b' END AS typtype,
           typcategory, typispreferred, true AS typisdefined, ',' AS typdelim, 0::BIGINT AS typrelid, 0::BIGINT AS typsubscript,
           CASE oid WHEN 22 THEN 21 WHEN 30 THEN 26 WHEN 19 THEN 18 ELSE 0 END::BIGINT AS typelem, typarray,
           0::BIGINT AS typinput, 0::BIGINT AS typoutput, 0::BIGINT AS typreceive, 0::BIGINT AS typsend, 0::BIGINT AS typmodin,
           0::BIGINT AS typmodout, 0::BIGINT AS typanalyze, typalign, typstorage, false AS typnotnull, 0::BIGINT AS typbasetype,
           -1 AS typtypmod, 0 AS typndims, typcollation, NULL::VARCHAR AS typdefaultbin, NULL::VARCHAR AS typdefault, NULL::VARCHAR[] AS typacl
    FROM @builtin_types
    UNION ALL
    SELECT typarray, '_' || typname, 11, 10, -1, false, 'b', 'A', false, true, ',', 0, 0, oid, 0, 750, 751, 2400, 2401, 0, 0, 0,
           CASE typalign WHEN 'd' THEN 'd' ELSE 'i' END, 'x', false, 0, -1, 0, typcollation, NULL, NULL, NULL
    FROM @builtin_types WHERE typarray <> 0
    UNION ALL
    SELECT type_oid, type_name, schema_oid, 10, 4, true, 'e', 'E', false, true, ',', 0, 0, 0, @enum_array_oid(type_oid),
           3504, 3505, 3532, 3533, 0, 0, 0, 'i', 'p', false, 0, -1, 0, 0, NULL, NULL, NULL
    FROM @enum_types
    UNION ALL
    SELECT @enum_array_oid(type_oid), '_' || type_name, schema_oid, 10, -1, false, 'b', 'A', false, true, ',', 0, 0, type_oid, 0,
           750, 751, 2400, 2401, 0, 0, 0, 'i', 'x', false, 0, -1, 0, 0, NULL, NULL, NULL
    FROM @enum_types;

CREATE VIEW @pg_enum AS
    SELECT type_oid * 2048 + n AS oid, type_oid AS enumtypid, n::FLOAT AS enumsortorder, labels[n] AS enumlabel
    FROM (SELECT *, unnest(range(1, len(labels) + 1)) AS n FROM @enum_types);

CREATE VIEW @pg_index AS
    SELECT oid AS indexrelid, table_oid AS indrelid, len(keys)::SMALLINT AS indnatts, len(keys)::SMALLINT AS indnkeyatts,
           is_unique AS indisunique, false AS indnullsnotdistinct, is_primary AS indisprimary, false AS indisexclusion,
           true AS indimmediate, false AS indisclustered, true AS indisvalid, false AS indcheckxmin, true AS indisready,
           true AS indislive, false AS indisreplident, keys AS indkey, [0::BIGINT FOR k IN keys] AS indcollation,
           [0::BIGINT FOR k IN keys] AS indclass, [0::SMALLINT FOR k IN keys] AS indoption,
           CASE WHEN list_contains(keys, 0) THEN array_to_string([items[n] FOR n IN range(1, len(keys) + 1) IF keys[n] = 0], ', ') END AS indexprs,
           NULL::VARCHAR AS indpred
    FROM @indexes;

CREATE VIEW @pg_constraint AS
    SELECT c.oid, name AS conname, namespace AS connamespace,
           CASE constraint_type WHEN 'PRIMARY KEY' THEN 'p' WHEN 'UNIQUE' THEN 'u' WHEN 'FOREIGN KEY' THEN 'f' ELSE 'c' END AS contype,
           false AS condeferrable, false AS condeferred, true AS convalidated, c.table_oid AS conrelid, 0::BIGINT AS contypid,
           CASE constraint_type WHEN 'PRIMARY KEY' THEN c.oid + 268435456 WHEN 'UNIQUE' THEN c.oid + 268435456
               WHEN 'FOREIGN KEY' THEN (SELECT max(k.oid) + 268435456 FROM @constraints k WHERE k.table_oid = r.table_oid
                   AND k.constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND k.constraint_column_names = c.referenced_column_names)
               ELSE 0 END AS conindid,
           0::BIGINT AS conparentid, coalesce(r.table_oid, 0) AS confrelid,
           CASE constraint_type WHEN 'FOREIGN KEY' THEN 'a' ELSE ' ' END AS confupdtype,
           CASE constraint_type WHEN 'FOREIGN KEY' THEN 'a' ELSE ' ' END AS confdeltype,
           CASE constraint_type WHEN 'FOREIGN KEY' THEN 's' ELSE ' ' END AS confmatchtype,
           true AS conislocal, 0::SMALLINT AS coninhcount, true AS connoinherit,
           [(k + 1)::SMALLINT FOR k IN constraint_column_indexes] AS conkey,
           CASE constraint_type WHEN 'FOREIGN KEY' THEN [list_position(columns, k)::SMALLINT FOR k IN referenced_column_names] END AS confkey,
           NULL::BIGINT[] AS conpfeqop, NULL::BIGINT[] AS conppeqop, NULL::BIGINT[] AS conffeqop, NULL::SMALLINT[] AS confdelsetcols,
           NULL::BIGINT[] AS conexclop, expression AS conbin,
           CASE constraint_type
               WHEN 'CHECK' THEN 'CHECK ' || expression
               WHEN 'FOREIGN KEY' THEN 'FOREIGN KEY (' || quoted_columns
                   || ') REFERENCES ' || CASE WHEN @is_visible_schema(c.schema_name) THEN '' ELSE @quote_ident(c.schema_name) || '.' END
                   || @quote_ident(referenced_table) || '(' || quoted_referenced || ')'
               ELSE constraint_type || ' (' || quoted_columns || ')'
           END AS condef
    FROM @constraints c JOIN @namespace_of USING (schema_oid) JOIN @constraint_columns q ON q.oid = c.oid
    LEFT JOIN (SELECT schema_oid AS referenced_schema, table_name AS referenced_name, table_oid FROM duckdb_tables()) r
        ON referenced_schema = c.schema_oid AND referenced_name = c.referenced_table
    LEFT JOIN @columns_of o ON o.table_oid = r.table_oid
    WHERE constraint_type <> 'NOT NULL';

CREATE VIEW @pg_description AS
    SELECT oid AS objoid, 1259::BIGINT AS classoid, 0 AS objsubid, comment AS description FROM @relations WHERE comment IS NOT NULL
    UNION ALL
    SELECT table_oid, 1259, column_index, comment FROM duckdb_columns()
    WHERE comment IS NOT NULL AND database_name IN (current_database(), 'temp')
    UNION ALL SELECT oid, 2615, 0, comment FROM @pg_namespace WHERE comment IS NOT NULL
    UNION ALL SELECT type_oid, 1247, 0, comment FROM @enum_types WHERE comment IS NOT NULL
    UNION ALL SELECT function_oid, 1255, 0, comment FROM duckdb_functions() WHERE comment IS NOT NULL AND NOT internal;

CREATE VIEW @pg_sequence AS
    SELECT sequence_oid AS seqrelid, 20::BIGINT AS seqtypid, start_value AS seqstart, increment_by AS seqincrement,
           max_value AS seqmax, min_value AS seqmin, 1::BIGINT AS seqcache, cycle AS seqcycle
    FROM duckdb_sequences() WHERE database_name IN (current_database(), 'temp');
CREATE VIEW @pg_sequences AS
    SELECT schema_name AS schemaname, sequence_name AS sequencename, @session_user_name() AS sequenceowner, 'bigint' AS data_type,
           start_value, min_value, max_value, increment_by, cycle, 1::BIGINT AS cache_size, last_value
    FROM duckdb_sequences() WHERE database_name IN (current_database(), 'temp');

CREATE VIEW @pg_proc AS
    SELECT oid::BIGINT AS oid, proname, pronamespace::BIGINT AS pronamespace, 10::BIGINT AS proowner, language::BIGINT AS prolang,
           1::FLOAT AS procost, 0::FLOAT AS prorows, 0::BIGINT AS provariadic, 0::BIGINT AS prosupport, prokind, false AS prosecdef,
           false AS proleakproof, false AS proisstrict, returns_set AS proretset, provolatile, 's' AS proparallel,
           coalesce(len(names), 0)::SMALLINT AS pronargs, 0::SMALLINT AS pronargdefaults, 2276::BIGINT AS prorettype,
           [2276::BIGINT FOR n IN names] AS proargtypes, NULL::BIGINT[] AS proallargtypes, NULL::VARCHAR[] AS proargmodes,
           names AS proargnames, NULL::VARCHAR AS proargdefaults, NULL::BIGINT[] AS protrftypes, source AS prosrc, NULL::VARCHAR AS probin,
           NULL::VARCHAR AS prosqlbody, NULL::VARCHAR[] AS proconfig, NULL::VARCHAR[] AS proacl, types, result
    FROM (
        SELECT function_oid AS oid, function_name AS proname, (SELECT min(oid) FROM duckdb_schemas() s
                   WHERE s.database_name = f.database_name AND s.schema_name = f.schema_name) AS pronamespace, 14 AS language,
               'f' AS prokind, function_type = 'table_macro' AS returns_set, 'v' AS provolatile, parameters AS names,
               macro_definition AS source, parameter_types AS types, NULL AS result
        FROM duckdb_functions() f WHERE NOT internal AND database_name = current_database()
        UNION ALL
        SELECT 1610612736 + row_number() OVER (ORDER BY function_name, function_oid, parameter_types::VARCHAR), function_name, 11, 12,
               CASE function_type WHEN 'aggregate' THEN 'a' ELSE 'f' END, false,
               CASE stability WHEN 'VOLATILE' THEN 'v' WHEN 'CONSISTENT_WITHIN_QUERY' THEN 's' ELSE 'i' END,
               parameters, function_name, parameter_types, return_type
        FROM duckdb_functions() WHERE internal AND function_type IN ('scalar', 'aggregate') AND regexp_full_match(function_name, '[a-z_0-9]+')
        UNION ALL
        SELECT oid, proname, 11, 12, 'f', false, 'i', [], proname, [], NULL
        FROM (VALUES (750, 'array_in'), (751, 'array_out'), (2400, 'array_recv'), (2401, 'array_send'),
                     (3504, 'enum_in'), (3505, 'enum_out'), (3532, 'enum_recv'), (3533, 'enum_send')) b(oid, proname));

CREATE VIEW @pg_roles AS
    SELECT "user" AS rolname, admin <> 0 AS rolsuper, true AS rolinherit, admin <> 0 AS rolcreaterole, admin <> 0 AS rolcreatedb,
           true AS rolcanlogin, false AS rolreplication, -1 AS rolconnlimit, '********' AS rolpassword,
           NULL::TIMESTAMPTZ AS rolvaliduntil, false AS rolbypassrls, NULL::VARCHAR[] AS rolconfig, 10::BIGINT AS oid
    FROM duckgres_session();
CREATE VIEW @pg_authid AS SELECT * EXCLUDE (rolconfig) FROM @pg_roles;
CREATE VIEW @pg_user AS
    SELECT rolname AS usename, oid AS usesysid, rolcreatedb AS usecreatedb, rolsuper AS usesuper, rolreplication AS userepl,
           rolbypassrls AS usebypassrls, rolpassword AS passwd, rolvaliduntil AS valuntil, rolconfig AS useconfig FROM @pg_roles;

CREATE VIEW @pg_database AS
    SELECT 5::BIGINT + hash(datname) % 268435456 AS oid, datname, 10::BIGINT AS datdba, 6 AS encoding, 'c' AS datlocprovider,
           false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 0::BIGINT AS datfrozenxid, 1::BIGINT AS datminmxid,
           1663::BIGINT AS dattablespace, 'C.UTF-8' AS datcollate, 'C.UTF-8' AS datctype, NULL::VARCHAR AS daticulocale,
           NULL::VARCHAR AS datcollversion, NULL::VARCHAR[] AS datacl
    FROM (SELECT current_database() AS datname);

CREATE VIEW @pg_settings AS
    SELECT name, value AS setting, NULL::VARCHAR AS unit, 'DuckDB' AS category, description AS short_desc, NULL::VARCHAR AS extra_desc,
           'user' AS context, CASE input_type WHEN 'BOOLEAN' THEN 'bool' WHEN 'BIGINT' THEN 'integer' WHEN 'UBIGINT' THEN 'integer'
               WHEN 'DOUBLE' THEN 'real' ELSE 'string' END AS vartype, 'default' AS source, NULL::VARCHAR AS min_val,
           NULL::VARCHAR AS max_val, NULL::VARCHAR[] AS enumvals, value AS boot_val, value AS reset_val,
           NULL::VARCHAR AS sourcefile, NULL::INTEGER AS sourceline, false AS pending_restart
    FROM duckdb_settings();

CREATE VIEW @pg_am AS SELECT * FROM (VALUES (2::BIGINT, 'heap', 3::BIGINT, 't'), (403::BIGINT, 'btree', 330::BIGINT, 'i'))
    t(oid, amname, amhandler, amtype);
CREATE VIEW @pg_tablespace AS SELECT oid, spcname, 10::BIGINT AS spcowner, NULL::VARCHAR[] AS spcacl, NULL::VARCHAR[] AS spcoptions
    FROM (VALUES (1663::BIGINT, 'pg_default'), (1664::BIGINT, 'pg_global')) t(oid, spcname);
CREATE VIEW @pg_collation AS SELECT oid, collname, 11::BIGINT AS collnamespace, 10::BIGINT AS collowner, provider AS collprovider,
           true AS collisdeterministic, -1 AS collencoding, locale AS collcollate, locale AS collctype,
           NULL::VARCHAR AS colliculocale, NULL::VARCHAR AS collversion
    FROM (VALUES (100::BIGINT, 'default', 'd', ''), (950::BIGINT, 'C', 'c', 'C'), (951::BIGINT, 'POSIX', 'c', 'POSIX'))
    t(oid, collname, provider, locale);
CREATE VIEW @pg_language AS SELECT oid, lanname, 10::BIGINT AS lanowner, false AS lanispl, true AS lanpltrusted, 0::BIGINT AS lanplcallfoid,
           0::BIGINT AS laninline, 0::BIGINT AS lanvalidator, NULL::VARCHAR[] AS lanacl
    FROM (VALUES (12::BIGINT, 'internal'), (14::BIGINT, 'sql')) t(oid, lanname);
CREATE VIEW @pg_extension AS SELECT hash(name) % 268435456 + 1342177280 AS oid, name AS extname, 10::BIGINT AS extowner,
           11::BIGINT AS extnamespace, false AS extrelocatable, ltrim(library_version, 'v') AS extversion, NULL::BIGINT[] AS extconfig,
           NULL::VARCHAR[] AS extcondition FROM (VALUES ~EXTENSIONS~) t(name), pragma_version();

CREATE VIEW @pg_tables AS
    SELECT nspname AS schemaname, relname AS tablename, @session_user_name() AS tableowner, NULL::VARCHAR AS tablespace,
           relhasindex AS hasindexes, relhasrules AS hasrules, relhastriggers AS hastriggers, relrowsecurity AS rowsecurity
    FROM @pg_class c JOIN @pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r';
CREATE VIEW @view_definitions AS
    SELECT view_oid AS oid, ' ' || regexp_replace(sql, '^CREATE\s+(?:TEMP(?:ORARY)?\s+)?VIEW\s+(?:"(?:[^"]|"")*"|[^\s"(]+)+\s*(?:\([^)]*\)\s*)?AS\s+', '', 's') AS definition
    FROM duckdb_views() WHERE NOT internal;
CREATE VIEW @pg_views AS
    SELECT nspname AS schemaname, relname AS viewname, @session_user_name() AS viewowner, definition
    FROM @pg_class c JOIN @pg_namespace n ON n.oid = relnamespace JOIN @view_definitions d ON d.oid = c.oid;
CREATE VIEW @index_definitions AS
    SELECT oid, items, 'CREATE ' || CASE WHEN is_unique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || @quote_ident(name) || ' ON '
           || @quote_ident(schema_name) || '.' || @quote_ident(table_name) || ' USING btree (' || array_to_string(items, ', ') || ')' AS definition,
           schema_name, table_name, name FROM @indexes;
CREATE VIEW @pg_indexes AS
    SELECT schema_name AS schemaname, table_name AS tablename, name AS indexname, NULL::VARCHAR AS tablespace, definition AS indexdef
    FROM @index_definitions;
