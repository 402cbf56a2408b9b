-- Functions that read the tables.
--
-- DuckDB puts a macro's argument into its text: a name in the argument that is also
-- a column or a table inside the macro would mean that one. So what macros read has
-- names that nobody else uses.

-- Not by way of pg_class, which takes DuckDB three times as long to bind.
CREATE VIEW @class_ AS
    SELECT table_oid AS _oid, table_name AS _name, CASE database_name WHEN 'temp' THEN 'pg_temp' ELSE schema_name END AS _schema
    FROM duckdb_tables() WHERE database_name IN (current_database(), 'temp') AND NOT internal
    UNION ALL
    SELECT view_oid, view_name, CASE database_name WHEN 'temp' THEN 'pg_temp' ELSE schema_name END
    FROM duckdb_views() WHERE database_name IN (current_database(), 'temp') AND NOT internal
    UNION ALL
    SELECT sequence_oid, sequence_name, CASE database_name WHEN 'temp' THEN 'pg_temp' ELSE schema_name END
    FROM duckdb_sequences() WHERE database_name IN (current_database(), 'temp')
    UNION ALL
    SELECT index_oid, index_name, schema_name FROM duckdb_indexes() WHERE database_name IN (current_database(), 'temp')
    UNION ALL
    SELECT oid + 268435456, name, schema_name FROM @constraints WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE')
    UNION ALL
    SELECT oid, relname, 'pg_catalog' FROM @system_relations;
CREATE VIEW @type_ AS SELECT t.oid AS _oid, typname AS _name, nspname AS _schema FROM @pg_type t JOIN @pg_namespace n ON n.oid = t.typnamespace;
CREATE VIEW @spelling_ AS SELECT oid AS _oid, typname AS _spelling FROM @pg_type
    UNION ALL SELECT oid, display || suffix FROM @type_names
    UNION ALL SELECT * FROM (VALUES (23, 'int'), (1700, 'decimal'), (701, 'float'), (1042, 'char'), (1562, 'varbit')) a;
CREATE VIEW @namespace_ AS SELECT oid AS _oid, nspname AS _name FROM @pg_namespace;
CREATE VIEW @proc_ AS SELECT oid AS _oid, proname AS _name, proargnames AS _names, types AS _types, proretset AS _set, prosrc AS _source,
    result AS _result FROM @pg_proc;
CREATE VIEW @constraint_ AS SELECT oid AS _oid, condef AS _definition FROM @pg_constraint;
CREATE VIEW @index_ AS SELECT oid AS _oid, definition AS _definition, items AS _items FROM @index_definitions;
CREATE VIEW @view_ AS SELECT oid AS _oid, definition AS _definition FROM @view_definitions;
CREATE VIEW @description_ AS SELECT objoid AS _oid, classoid AS _class, objsubid AS _sub, description AS _text FROM @pg_description;
CREATE VIEW @system_ AS SELECT oid AS _oid, relname AS _name FROM @system_relations;
CREATE VIEW @setting_ AS SELECT name AS _name, setting AS _setting FROM @pg_settings;

CREATE MACRO @relation_name(relation_) AS (SELECT max(CASE WHEN @is_visible_schema(_schema) THEN '' ELSE @quote_ident(_schema) || '.' END || @quote_ident(_name))
    FROM @class_ WHERE _oid = relation_::BIGINT);
CREATE MACRO @find_relation(name_) AS (SELECT _oid FROM @class_ WHERE _name = @name_object(name_)
      AND CASE WHEN @name_schema(name_) IS NULL THEN @is_visible_schema(_schema) ELSE _schema = @name_schema(name_) END
    ORDER BY _schema = 'pg_catalog' LIMIT 1);
CREATE MACRO @to_regclass(name_) AS @find_relation(name_::VARCHAR);
CREATE MACRO @regclass_oid(given) AS CASE WHEN given IS NULL THEN NULL
    WHEN regexp_full_match(given::VARCHAR, '\d+') THEN TRY_CAST(given::VARCHAR AS BIGINT)
    ELSE coalesce(@find_relation(given::VARCHAR), error('relation "' || given::VARCHAR || '" does not exist')) END;
CREATE MACRO @regclass_text(given) AS CASE WHEN regexp_full_match(given::VARCHAR, '\d+')
    THEN coalesce(@relation_name(TRY_CAST(given::VARCHAR AS BIGINT)), CASE given::VARCHAR WHEN '0' THEN '-' ELSE given::VARCHAR END)
    ELSE @relation_name(@regclass_oid(given)) END;

CREATE MACRO @find_type(name_) AS (SELECT min(_oid) FROM @spelling_
    WHERE _spelling = regexp_replace(lower(name_), '^pg_catalog\.', '') OR _spelling = @name_object(name_));
CREATE MACRO @to_regtype(name_) AS @find_type(name_::VARCHAR);
CREATE MACRO @regtype_oid(given) AS CASE WHEN given IS NULL THEN NULL
    WHEN regexp_full_match(given::VARCHAR, '\d+') THEN TRY_CAST(given::VARCHAR AS BIGINT)
    ELSE coalesce(@find_type(given::VARCHAR), error('type "' || given::VARCHAR || '" does not exist')) END;
CREATE MACRO @regtype_text(given) AS @format_type(@regtype_oid(given), NULL);

CREATE MACRO @find_function(name_) AS (SELECT min(_oid) FROM @proc_ WHERE _name = @name_object(regexp_replace(name_, '\(.*$', '')));
CREATE MACRO @regproc_oid(given) AS CASE WHEN given IS NULL THEN NULL
    WHEN regexp_full_match(given::VARCHAR, '\d+') THEN TRY_CAST(given::VARCHAR AS BIGINT)
    ELSE coalesce(@find_function(given::VARCHAR), error('function "' || given::VARCHAR || '" does not exist')) END;
CREATE MACRO @regproc_text(given) AS (SELECT coalesce(max(_name), '-') FROM @proc_ WHERE _oid = @regproc_oid(given));
CREATE MACRO @regnamespace_oid(given) AS CASE WHEN regexp_full_match(given::VARCHAR, '\d+') THEN TRY_CAST(given::VARCHAR AS BIGINT)
    ELSE coalesce((SELECT min(_oid) FROM @namespace_ WHERE _name = @name_part(given::VARCHAR)), error('schema "' || given::VARCHAR || '" does not exist')) END;
CREATE MACRO @regnamespace_text(given) AS (SELECT max(_name) FROM @namespace_ WHERE _oid = @regnamespace_oid(given));
CREATE MACRO @regrole_oid(given) AS 10::BIGINT;
CREATE MACRO @regrole_text(given) AS @session_user_name();

CREATE MACRO @pg_table_is_visible(relation_) AS coalesce((SELECT bool_or(@is_visible_schema(_schema)) FROM @class_ WHERE _oid = relation_::BIGINT), false);
CREATE MACRO @pg_type_is_visible(type_) AS coalesce((SELECT bool_or(@is_visible_schema(_schema)) FROM @type_ WHERE _oid = type_::BIGINT), false);
CREATE MACRO @pg_function_is_visible(f) AS true;
CREATE MACRO @pg_operator_is_visible(o) AS true;
CREATE MACRO @pg_collation_is_visible(o) AS true;
CREATE MACRO @pg_conversion_is_visible(o) AS true;
CREATE MACRO @pg_opclass_is_visible(o) AS true;
CREATE MACRO @pg_opfamily_is_visible(o) AS true;
CREATE MACRO @pg_statistics_obj_is_visible(o) AS true;
CREATE MACRO @pg_ts_config_is_visible(o) AS true;
CREATE MACRO @pg_ts_dict_is_visible(o) AS true;
CREATE MACRO @pg_ts_parser_is_visible(o) AS true;
CREATE MACRO @pg_ts_template_is_visible(o) AS true;

CREATE MACRO @pg_get_userbyid(role) AS @session_user_name();
CREATE MACRO @pg_encoding_to_char(encoding) AS CASE encoding WHEN 6 THEN 'UTF8' WHEN 0 THEN 'SQL_ASCII' ELSE '' END;
CREATE MACRO @pg_char_to_encoding(encoding) AS CASE WHEN upper(encoding) IN ('UTF8', 'UNICODE') THEN 6 WHEN upper(encoding) = 'SQL_ASCII' THEN 0 ELSE -1 END;
CREATE MACRO @getdatabaseencoding() AS 'UTF8';
CREATE MACRO @pg_describe_object(c, o, s) AS NULL::VARCHAR;
CREATE MACRO @pg_get_expr(expression, relation) AS expression::VARCHAR, (expression, relation, pretty) AS expression::VARCHAR;
CREATE MACRO @pg_get_constraintdef(o) AS (SELECT max(_definition) FROM @constraint_ WHERE _oid = o::BIGINT),
    (o, pretty) AS (SELECT max(_definition) FROM @constraint_ WHERE _oid = o::BIGINT);
CREATE MACRO @pg_get_indexdef(o) AS (SELECT max(_definition) FROM @index_ WHERE _oid = o::BIGINT),
    (o, col, pretty) AS (SELECT max(CASE WHEN col = 0 THEN _definition ELSE _items[col] END) FROM @index_ WHERE _oid = o::BIGINT);
CREATE MACRO @pg_get_viewdef(v) AS (SELECT max(_definition) FROM @view_ WHERE _oid = @regclass_oid(v)),
    (v, pretty) AS (SELECT max(_definition) FROM @view_ WHERE _oid = @regclass_oid(v));
CREATE MACRO @pg_get_functiondef(f) AS (SELECT max('CREATE MACRO ' || @quote_ident(_name) || '(' || coalesce(array_to_string(_names, ', '), '')
    || ') AS ' || CASE WHEN _set THEN 'TABLE ' ELSE '' END || _source) FROM @proc_ WHERE _oid = f::BIGINT);
CREATE MACRO @pg_get_function_arguments(f) AS (SELECT max(coalesce(array_to_string(
    [_names[_n] || coalesce(' ' || lower(_types[_n]), '') FOR _n IN range(1, len(_names) + 1)], ', '), '')) FROM @proc_ WHERE _oid = f::BIGINT);
CREATE MACRO @pg_get_function_identity_arguments(f) AS @pg_get_function_arguments(f);
CREATE MACRO @pg_get_function_result(f) AS (SELECT max(CASE WHEN _set THEN 'TABLE' ELSE coalesce(lower(_result), 'anyelement') END) FROM @proc_ WHERE _oid = f::BIGINT);
CREATE MACRO @pg_get_function_sqlbody(f) AS NULL::VARCHAR;
CREATE MACRO @pg_get_triggerdef(t) AS NULL::VARCHAR, (t, pretty) AS NULL::VARCHAR;
CREATE MACRO @pg_get_ruledef(t) AS NULL::VARCHAR, (t, pretty) AS NULL::VARCHAR;
CREATE MACRO @pg_get_partkeydef(t) AS NULL::VARCHAR;
CREATE MACRO @pg_get_partition_constraintdef(t) AS NULL::VARCHAR;
CREATE MACRO @pg_get_statisticsobjdef_columns(t) AS NULL::VARCHAR;
CREATE MACRO @pg_get_serial_sequence(t, c) AS NULL::VARCHAR;
CREATE MACRO @pg_partition_ancestors(t) AS NULL::BIGINT;
CREATE MACRO @pg_relation_is_publishable(t) AS false;
CREATE MACRO @pg_tablespace_location(t) AS '';
CREATE MACRO @pg_is_in_recovery() AS false;
CREATE MACRO @pg_is_other_temp_schema(n) AS false;
CREATE MACRO @pg_my_temp_schema() AS 99::BIGINT;
CREATE MACRO @pg_client_encoding() AS 'UTF8';
CREATE MACRO @pg_column_is_updatable(t, c, i) AS true;
CREATE MACRO @pg_relation_is_updatable(t, i) AS 28;

CREATE MACRO @obj_description(o) AS (SELECT max(_text) FROM @description_ WHERE _oid = o::BIGINT AND _sub = 0),
    (o, c) AS (SELECT max(_text) FROM @description_ WHERE _oid = o::BIGINT AND _sub = 0
        AND _class = (SELECT max(_oid) FROM @system_ WHERE _name = c));
CREATE MACRO @shobj_description(o, c) AS NULL::VARCHAR;
CREATE MACRO @col_description(o, c) AS (SELECT max(_text) FROM @description_ WHERE _oid = o::BIGINT AND _sub = c AND _class = 1259);

-- There are no privileges inside a database: who is let in may do everything.
CREATE MACRO @has_table_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_any_column_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_column_privilege(a, b, c) AS true, (a, b, c, d) AS true;
CREATE MACRO @has_schema_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_database_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_function_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_sequence_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_type_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_language_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @has_tablespace_privilege(a, b) AS true, (a, b, c) AS true;
CREATE MACRO @pg_has_role(a, b) AS true, (a, b, c) AS true;

CREATE MACRO @pg_database_size(d) AS (SELECT max(block_size * total_blocks)::BIGINT FROM pragma_database_size()
    WHERE database_name = CASE WHEN regexp_full_match(d::VARCHAR, '\d+') THEN current_database() ELSE d::VARCHAR END);
-- DuckDB does not say how large one table is.
CREATE MACRO @pg_table_size(t) AS NULL::BIGINT;
CREATE MACRO @pg_relation_size(t) AS NULL::BIGINT, (t, f) AS NULL::BIGINT;
CREATE MACRO @pg_total_relation_size(t) AS NULL::BIGINT;
CREATE MACRO @pg_indexes_size(t) AS NULL::BIGINT;
CREATE MACRO @pg_tablespace_size(t) AS @pg_database_size(current_database());
CREATE MACRO @pg_size_pretty(size) AS CASE
    WHEN abs(size) < 10240 THEN size || ' bytes'
    WHEN abs(size) < 20971520 - 1024 THEN round(size / 1024)::BIGINT || ' kB'
    WHEN abs(size) < 10736893952 THEN round(size / 1048576)::BIGINT || ' MB'
    WHEN abs(size) < 10994579406848 THEN round(size / 1073741824)::BIGINT || ' GB'
    ELSE round(size / 1099511627776)::BIGINT || ' TB' END;

CREATE MACRO @array_remove(a, e) AS [x FOR x IN a IF x IS DISTINCT FROM e];
CREATE MACRO @array_upper(a, d) AS CASE WHEN len(a) > 0 THEN len(a)::INTEGER END;
CREATE MACRO @array_lower(a, d) AS CASE WHEN len(a) > 0 THEN 1 END;
CREATE MACRO @acldefault(k, o) AS NULL::VARCHAR[];
CREATE MACRO @setting_value(s) AS (SELECT max(_setting) FROM @setting_ WHERE _name = s);
