use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::*;

fn load(yaml: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("duckgres.yaml");
    std::fs::write(&file, yaml).unwrap();
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    };
    let mut values = own(flags);
    values.push(("data-dir".into(), "/nonexistent/data".into()));
    Config::assemble(&Flags { config: None, values }, own(env).into_iter(), Some(&file))
}

fn problems(yaml: &str) -> Vec<String> {
    let Err(problems) = load(yaml, &[], &[]) else {
        panic!("no problem found")
    };
    problems
        .0
        .iter()
        .map(|problem| match &problem.origin {
            Origin::File(_, line) => format!("{line}: {}", problem.message),
            _ => problem.to_string(),
        })
        .collect()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let yaml = "port: 1\nshutdown_timeout: 1s\nthreads: 1\n";
    let env = [("DUCKGRES_PORT", "2"), ("DUCKGRES_THREADS", "2")];
    let config = load(yaml, &env, &[("port", "3")]).ok().unwrap();
    assert_eq!(config.settings.port, 3);
    assert_eq!(config.settings.threads.unwrap().get(), 2);
    assert_eq!(config.settings.shutdown_timeout, Duration::from_secs(1));
    assert_eq!(config.settings.authentication_timeout, Duration::from_secs(60));
}

#[test]
fn every_default_is_valid() {
    let config = load("", &[], &[]).ok().unwrap();
    assert_eq!(config.settings.host, ["localhost"]);
    assert_eq!(config.settings.mode, Mode::Standalone);
    assert_eq!(config.settings.max_connections, 1000);
    assert!(config.settings.users.is_empty());
    assert!(config.settings.memory_limit.is_none());
}

#[test]
fn the_configuration_of_the_go_version_is_understood() {
    let yaml = r#"
host: "0.0.0.0"
port: 5433
data_dir: "./data"
tls:
  cert: "./certs/server.crt"
  key: "./certs/server.key"
users:
  postgres: "postgres"
  alice: "alice123"
extensions:
  - ducklake
  - httpfs
rate_limit:
  max_failed_attempts: 5
  failed_attempt_window: "5m"
  ban_duration: "15m"
  max_connections_per_ip: 100
  max_connections: 12
"#;
    let config = load(yaml, &[], &[]).ok().unwrap();
    assert_eq!(config.settings.users.len(), 2);
    assert_eq!(config.settings.extensions, ["ducklake", "httpfs"]);
    assert_eq!(config.settings.ban_duration, Duration::from_secs(900));
    assert_eq!(config.settings.max_connections, 12);
    assert!(config.settings.tls_cert.unwrap().is_absolute());
}

#[test]
fn all_problems_are_reported_with_their_lines() {
    let yaml = "prot: 5432\nport: many\ntls:\n  crt: a\n  mode: sometimes\nducklake:\n  data_path: x\nusers:\n  a/b: x\n  bob: {passwd: y}\n  eve:\nthreads: 0\n";
    assert_eq!(
        problems(yaml),
        [
            "1: unknown key \"prot\"; did you mean \"port\"?",
            "2: port: must be a number from 0 to 65535",
            "4: unknown key \"tls.crt\"; did you mean \"tls.cert\"?",
            "5: tls.mode: must be disable, allow or require",
            "6: ducklake is a setting of the Go duckgres that has no meaning here; remove it",
            "9: users: the user name \"a/b\" contains a slash",
            "10: users: unknown key \"passwd\"; a user has password, verifier, databases, admin and cleartext",
            "11: users: must be a password, or a map with `password` or `verifier`",
            "12: threads: must be a whole number, 1 or more",
        ]
    );
}

#[test]
fn a_setting_given_twice_under_two_names_is_a_problem() {
    let found = problems("max_connections: 1\nrate_limit:\n  max_connections: 2\n");
    assert_eq!(
        found,
        ["3: rate_limit.max_connections is the same as max_connections on line 1"]
    );
}

#[test]
fn problems_of_flags_and_variables_name_them() {
    let Err(found) = load("", &[("DUCKGRES_THREADS", "x")], &[("port", "70000")]) else {
        panic!()
    };
    assert_eq!(
        found.to_string(),
        "--port: must be a number from 0 to 65535\n\
         environment variable DUCKGRES_THREADS: must be a whole number, 1 or more"
    );
}

#[test]
fn unknown_variables_are_noted_but_do_not_stop_the_server() {
    let config = load("", &[("DUCKGRES_PROT", "1")], &[]).ok().unwrap();
    assert_eq!(
        config.notes,
        ["environment variable DUCKGRES_PROT has no meaning; did you mean \"DUCKGRES_PORT\"?"]
    );
}

#[test]
fn users_have_a_password_or_a_verifier() {
    let verifier = Verifier::derive(&Password::new("x".into()), b"salt")
        .to_text()
        .to_string();
    let yaml = format!(
        "users:\n  a: 0123\n  b: {{password: yes}}\n  c: {{verifier: \"{verifier}\"}}\n  d: '{verifier}'\n"
    );
    let users = load(&yaml, &[], &[]).ok().unwrap().settings.users;
    let credential = |name: &str| users[name].credential.as_ref().unwrap();
    assert!(matches!(credential("a"), Credential::Password(password) if password.expose() == "0123"));
    assert!(matches!(credential("b"), Credential::Password(password) if password.expose() == "yes"));
    assert!(matches!(credential("c"), Credential::Verifier(_)));
    assert!(matches!(credential("d"), Credential::Verifier(_)));
    assert_eq!(problems("users: {a: ''}"), ["1: users: the password is empty"]);
    assert_eq!(
        problems("users: {a: {}}"),
        ["1: users: must have either `password` or `verifier`"]
    );
}

#[test]
fn users_have_their_own_database_unless_others_are_granted() {
    let yaml = "users:\n  a: x\n  b: {password: x, databases: [b, sales]}\n  c: {password: x, databases: '*'}\n\
                \x20 d: {admin: on}\n  e: {admin: on, databases: 'logs, e', cleartext: off}\n";
    let config = load(yaml, &[], &[]).ok().unwrap();
    let users = config.settings.users;
    assert_eq!(users["a"].databases, Databases::only("a"));
    assert!(!users["a"].admin && users["a"].cleartext.is_none());
    assert!(users["b"].databases.contains("sales") && !users["b"].databases.contains("a"));
    assert_eq!(users["c"].databases, Databases::All);
    assert!(users["d"].admin && users["d"].databases == Databases::All && users["d"].credential.is_none());
    assert!(users["e"].databases.contains("logs") && !users["e"].databases.contains("a"));
    assert_eq!(users["e"].cleartext, Some(false));
}

#[test]
fn what_is_wrong_with_a_user_is_said_line_by_line() {
    let yaml = "users:\n  a:\n    password: [x]\n    admin: maybe\n    databases:\n      - ok\n      - a/b\n\
                \x20 b: {databases: []}\n  c: {password: x, verifier: y}\n";
    assert_eq!(
        problems(yaml),
        [
            "3: users: the password must be text",
            "4: users: admin must be on or off",
            "7: users: databases must be a database name, or * for every database",
            "8: users: databases must name a database, or be * for every database",
            "9: users: is not a verifier of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
        ]
    );
}

#[test]
fn users_of_the_machine_are_mapped_to_users_of_the_server() {
    let yaml = "users: {alice: x, bob: y}\nauth:\n  peer_map:\n    root: '*'\n    www: [alice, nobody]\n    eve: []\n";
    let config = load(yaml, &[], &[]).ok().unwrap();
    let allows = |os_user, user| config.settings.auth_peer_map.allows(os_user, user);
    assert!(allows("root", "bob") && allows("www", "alice") && allows("bob", "bob"));
    assert!(
        !allows("www", "bob") && !allows("www", "www") && !allows("eve", "eve") && !allows("bob", "alice")
    );
    assert_eq!(config.notes, ["auth.peer_map: there is no user \"nobody\""]);
    let locked = load("users: {a: x, b: {admin: on}}\nauth: {peer: off}\n", &[], &[])
        .ok()
        .unwrap();
    let note = "user \"b\" has no password, and auth.peer is off: nobody can log in as this user";
    assert_eq!(locked.notes, [note]);
    let found = problems("auth:\n  peer_map:\n    www: [a/b]\n    eve: {x: y}\n");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn proxies_are_networks_and_an_ipv6_prefix_fits_an_address() {
    let yaml = "proxy_protocol:\n  trusted_addresses: [10.0.0.0/8, '::1']\n";
    assert_eq!(
        load(yaml, &[], &[]).ok().unwrap().settings.trusted_proxies.len(),
        2
    );
    let found = problems("proxy_protocol:\n  trusted_addresses:\n    - lb.example.org\n");
    assert!(
        found[0].starts_with("3: proxy_protocol.trusted_addresses: must be an IP address"),
        "{found:?}"
    );
    for prefix in ["0", "129"] {
        let found = problems(&format!("rate_limit: {{ipv6_prefix: {prefix}}}\n"));
        assert_eq!(
            found,
            ["1: rate_limit.ipv6_prefix: must be a whole number from 1 to 128"]
        );
    }
}

#[test]
fn plaintext_is_allowed_by_default_only_where_nobody_else_can_listen() {
    let mode = |host: &str| load("", &[], &[("host", host)]).ok().unwrap().tls_mode();
    assert_eq!(mode("localhost"), TlsMode::Allow);
    assert_eq!(mode("127.0.0.1,::1"), TlsMode::Allow);
    assert_eq!(mode("127.0.0.1,10.0.0.1"), TlsMode::Require);
    assert_eq!(mode("*"), TlsMode::Require);
    assert_eq!(mode("db.example.org"), TlsMode::Require);
}

#[test]
fn a_control_plane_needs_users_and_makes_its_certificate_itself() {
    let found = problems("mode: control-plane\n");
    assert_eq!(found, ["1: mode: control-plane needs users"]);
}

#[test]
fn sql_cannot_be_given_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let inside = data.join("import");
    std::fs::create_dir_all(&inside).unwrap();
    let try_access = |access: &std::path::Path| {
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let values = vec![
            ("data-dir".into(), text(&data)),
            ("file-access".into(), text(access)),
        ];
        Config::assemble(&Flags { config: None, values }, std::iter::empty(), None)
    };
    for wrong in [
        directory.path(),
        &data,
        std::path::Path::new("/"),
        &data.join("missing"),
    ] {
        assert!(try_access(wrong).is_err(), "{}", wrong.display());
    }
    assert!(try_access(&inside).is_ok());
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    assert!(try_access(&link).is_err());
}

#[test]
fn a_worker_reads_what_it_was_told() {
    let told = WorkerConfig {
        id: 7,
        data_dir: "/var/lib/duckgres".into(),
        extension_directory: Some("-odd name".into()),
        extensions: vec!["icu".into(), "json".into()],
        memory_limit: Some(Size(4_000_000_000)),
        threads: Some(2.try_into().unwrap()),
        temp_directory: None,
        file_access: vec![PathBuf::from("/srv/a"), PathBuf::from("/srv/b")],
        log_level: "info,duckgres=debug".into(),
        query_log: Statements::Errors,
        log_min_duration_statement: Threshold(Some(std::time::Duration::from_millis(250))),
        query_log_text: true,
        query_log_file: Some("/var/log/queries".into()),
        turn: Some("/run/turn".into()),
        control_user: Some("duckgres".into()),
    };
    let words = std::iter::once("duckgres-worker".into()).chain(told.to_args());
    assert_eq!(WorkerConfig::try_parse_from(words).unwrap(), told);
}

#[test]
fn the_command_line_is_well_formed() {
    cli::command().debug_assert();
    <WorkerConfig as clap::CommandFactory>::command().debug_assert();
    let matches =
        cli::command().get_matches_from(["duckgres", "--port", "0", "--extension", "a", "--extension", "b"]);
    assert_eq!(matches.get_many::<String>("extension").unwrap().count(), 2);
}

#[test]
fn credentials_win_over_the_file_and_say_what_is_wrong_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("file"), "users: {bob: file}\ntls: {cert: /a, key: /b}\n").unwrap();
    std::fs::write(path("tls.cert"), "").unwrap();
    std::fs::write(path("tls.key"), "").unwrap();
    let load = |more: Option<(&str, &str)>| {
        let place = directory.path().display().to_string();
        let variables = [("CREDENTIALS_DIRECTORY".to_owned(), place)]
            .into_iter()
            .chain(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let flags = Flags {
            config: None,
            values: vec![("data-dir".into(), "/nonexistent".into())],
        };
        Config::assemble(&flags, variables, Some(&path("file")))
    };
    let loaded = |more| load(more).unwrap_or_else(|problems| panic!("{problems}"));
    let settings = loaded(None).settings;
    assert_eq!(settings.tls_key, Some(path("tls.key")));
    assert!(settings.users.contains_key("bob"), "no credential for it");
    let settings = loaded(Some(("DUCKGRES_KEY", "/c"))).settings;
    assert_eq!(settings.tls_key, Some("/c".into()));
    assert_eq!(settings.tls_cert, Some(path("tls.cert")));

    std::fs::write(path("users"), "alice: credential\n").unwrap();
    let users = loaded(None).settings.users;
    assert!(users.contains_key("alice") && !users.contains_key("bob"));
    std::fs::write(path("users"), "alice: {pasword: x}\n").unwrap();
    let problems = load(None).err().unwrap().to_string();
    assert!(problems.contains("users line 1"), "{problems}");
}
