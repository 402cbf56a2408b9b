-- information_schema, as far as DuckDB knows what to say. `#` is its schema.

CREATE VIEW #schemata AS
    SELECT current_database() AS catalog_name, nspname AS schema_name, @session_user_name() AS schema_owner,
           NULL::VARCHAR AS default_character_set_catalog, NULL::VARCHAR AS default_character_set_schema,
           NULL::VARCHAR AS default_character_set_name, NULL::VARCHAR AS sql_path
    FROM @pg_namespace WHERE nspname <> 'pg_temp';
CREATE VIEW #tables AS
    SELECT current_database() AS table_catalog, nspname AS table_schema, relname AS table_name,
           CASE WHEN relpersistence = 't' THEN 'LOCAL TEMPORARY' WHEN relkind = 'v' THEN 'VIEW' ELSE 'BASE TABLE' END AS table_type,
           NULL::VARCHAR AS self_referencing_column_name, NULL::VARCHAR AS reference_generation,
           NULL::VARCHAR AS user_defined_type_catalog, NULL::VARCHAR AS user_defined_type_schema, NULL::VARCHAR AS user_defined_type_name,
           CASE WHEN relkind = 'r' THEN 'YES' ELSE 'NO' END AS is_insertable_into, 'NO' AS is_typed, NULL::VARCHAR AS commit_action
    FROM @pg_class c JOIN @pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'v');
CREATE VIEW #columns AS
    SELECT current_database() AS table_catalog, n.nspname AS table_schema, relname AS table_name, attname AS column_name,
           attnum::INTEGER AS ordinal_position, adbin AS column_default, CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END AS is_nullable,
           CASE WHEN t.typcategory = 'A' THEN 'ARRAY' WHEN t.typtype = 'e' THEN 'USER-DEFINED' ELSE @format_type(atttypid, NULL) END AS data_type,
           NULL::INTEGER AS character_maximum_length,
           CASE WHEN atttypid IN (25, 1043) THEN 1073741824 END AS character_octet_length,
           CASE atttypid WHEN 21 THEN 16 WHEN 23 THEN 32 WHEN 20 THEN 64 WHEN 700 THEN 24 WHEN 701 THEN 53
               WHEN 1700 THEN CASE WHEN atttypmod >= 0 THEN (atttypmod - 4) >> 16 END END::INTEGER AS numeric_precision,
           CASE WHEN atttypid IN (20, 21, 23, 700, 701) THEN 2 WHEN atttypid = 1700 THEN 10 END AS numeric_precision_radix,
           CASE WHEN atttypid IN (20, 21, 23) THEN 0 WHEN atttypid = 1700 AND atttypmod >= 0 THEN (atttypmod - 4) & 65535 END::INTEGER AS numeric_scale,
           CASE WHEN atttypid = 1082 THEN 0 WHEN atttypid IN (1083, 1114, 1184, 1186, 1266) THEN 6 END AS datetime_precision,
           NULL::VARCHAR AS interval_type, NULL::INTEGER AS interval_precision,
           NULL::VARCHAR AS character_set_catalog, NULL::VARCHAR AS character_set_schema, NULL::VARCHAR AS character_set_name,
           NULL::VARCHAR AS collation_catalog, NULL::VARCHAR AS collation_schema, NULL::VARCHAR AS collation_name,
           NULL::VARCHAR AS domain_catalog, NULL::VARCHAR AS domain_schema, NULL::VARCHAR AS domain_name,
           current_database() AS udt_catalog, tn.nspname AS udt_schema, t.typname AS udt_name,
           NULL::VARCHAR AS scope_catalog, NULL::VARCHAR AS scope_schema, NULL::VARCHAR AS scope_name,
           NULL::INTEGER AS maximum_cardinality, attnum::VARCHAR AS dtd_identifier, 'NO' AS is_self_referencing, 'NO' AS is_identity,
           NULL::VARCHAR AS identity_generation, NULL::VARCHAR AS identity_start, NULL::VARCHAR AS identity_increment,
           NULL::VARCHAR AS identity_maximum, NULL::VARCHAR AS identity_minimum, 'NO' AS identity_cycle, 'NEVER' AS is_generated,
           NULL::VARCHAR AS generation_expression, CASE WHEN relkind = 'r' THEN 'YES' ELSE 'NO' END AS is_updatable
    FROM @pg_attribute a JOIN @pg_class c ON c.oid = attrelid JOIN @pg_namespace n ON n.oid = relnamespace
    JOIN @pg_type t ON t.oid = atttypid JOIN @pg_namespace tn ON tn.oid = t.typnamespace
    LEFT JOIN @pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    WHERE relkind IN ('r', 'v');
CREATE VIEW #table_constraints AS
    SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, conname AS constraint_name,
           current_database() AS table_catalog, nspname AS table_schema, relname AS table_name,
           CASE contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' ELSE 'CHECK' END AS constraint_type,
           'NO' AS is_deferrable, 'NO' AS initially_deferred, 'YES' AS enforced, CASE WHEN contype = 'u' THEN 'YES' END AS nulls_distinct
    FROM @pg_constraint k JOIN @pg_class c ON c.oid = conrelid JOIN @pg_namespace n ON n.oid = relnamespace
    UNION ALL
    SELECT current_database(), nspname, n.oid || '_' || c.oid || '_' || attnum || '_not_null', current_database(), nspname, relname,
           'CHECK', 'NO', 'NO', 'YES', NULL
    FROM @pg_attribute a JOIN @pg_class c ON c.oid = attrelid JOIN @pg_namespace n ON n.oid = relnamespace WHERE attnotnull;
CREATE VIEW #check_constraints AS
    SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, conname AS constraint_name, conbin AS check_clause
    FROM @pg_constraint k JOIN @pg_namespace n ON n.oid = connamespace WHERE contype = 'c';
CREATE VIEW #key_column_usage AS
    SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, conname AS constraint_name,
           current_database() AS table_catalog, nspname AS table_schema, relname AS table_name, attname AS column_name,
           place::INTEGER AS ordinal_position, CASE WHEN contype = 'f' THEN place END::INTEGER AS position_in_unique_constraint
    FROM (SELECT *, unnest(range(1, len(conkey) + 1)) AS place FROM @pg_constraint WHERE contype IN ('p', 'u', 'f')) k
    JOIN @pg_class c ON c.oid = conrelid JOIN @pg_namespace n ON n.oid = relnamespace
    JOIN @pg_attribute a ON attrelid = conrelid AND attnum = conkey[place];
CREATE VIEW #constraint_column_usage AS
    SELECT current_database() AS table_catalog, nspname AS table_schema, relname AS table_name, attname AS column_name,
           current_database() AS constraint_catalog, nspname AS constraint_schema, conname AS constraint_name
    FROM (SELECT *, CASE contype WHEN 'f' THEN confrelid ELSE conrelid END AS relation,
                 unnest(CASE contype WHEN 'f' THEN confkey ELSE conkey END) AS key FROM @pg_constraint) k
    JOIN @pg_class c ON c.oid = relation JOIN @pg_namespace n ON n.oid = relnamespace
    JOIN @pg_attribute a ON attrelid = relation AND attnum = key;
CREATE VIEW #referential_constraints AS
    SELECT current_database() AS constraint_catalog, n.nspname AS constraint_schema, k.conname AS constraint_name,
           current_database() AS unique_constraint_catalog, n.nspname AS unique_constraint_schema, u.conname AS unique_constraint_name,
           'NONE' AS match_option, 'NO ACTION' AS update_rule, 'NO ACTION' AS delete_rule
    FROM @pg_constraint k JOIN @pg_namespace n ON n.oid = k.connamespace
    LEFT JOIN @pg_constraint u ON u.conindid = k.conindid AND u.contype IN ('p', 'u') WHERE k.contype = 'f';
CREATE VIEW #views AS
    SELECT current_database() AS table_catalog, schemaname AS table_schema, viewname AS table_name, definition AS view_definition,
           'NONE' AS check_option, 'NO' AS is_updatable, 'NO' AS is_insertable_into, 'NO' AS is_trigger_updatable,
           'NO' AS is_trigger_deletable, 'NO' AS is_trigger_insertable_into FROM @pg_views;
CREATE VIEW #sequences AS
    SELECT current_database() AS sequence_catalog, schemaname AS sequence_schema, sequencename AS sequence_name, data_type,
           64 AS numeric_precision, 2 AS numeric_precision_radix, 0 AS numeric_scale, start_value::VARCHAR AS start_value,
           min_value::VARCHAR AS minimum_value, max_value::VARCHAR AS maximum_value, increment_by::VARCHAR AS increment,
           CASE WHEN cycle THEN 'YES' ELSE 'NO' END AS cycle_option FROM @pg_sequences;
CREATE VIEW #routines AS
    SELECT current_database() AS specific_catalog, nspname AS specific_schema, proname || '_' || p.oid AS specific_name,
           current_database() AS routine_catalog, nspname AS routine_schema, proname AS routine_name, 'FUNCTION' AS routine_type,
           NULL::VARCHAR AS data_type, 'SQL' AS routine_body, prosrc AS routine_definition, 'SQL' AS external_language
    FROM @pg_proc p JOIN @pg_namespace n ON n.oid = pronamespace WHERE prokind = 'f';
CREATE VIEW #information_schema_catalog_name AS SELECT current_database() AS catalog_name;
CREATE VIEW #enabled_roles AS SELECT rolname AS role_name FROM @pg_roles;
CREATE VIEW #applicable_roles AS SELECT rolname AS grantee, rolname AS role_name, 'NO' AS is_grantable FROM @pg_roles WHERE false;
