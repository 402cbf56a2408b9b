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
            "10: users: unknown key \"passwd\"; a user has `password` or `verifier`",
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
    assert!(matches!(&users["a"], Credential::Password(password) if password.expose() == "0123"));
    assert!(matches!(&users["b"], Credential::Password(password) if password.expose() == "yes"));
    assert!(matches!(&users["c"], Credential::Verifier(_)));
    assert!(matches!(&users["d"], Credential::Verifier(_)));
    assert_eq!(problems("users: {a: ''}"), ["1: users: the password is empty"]);
    assert_eq!(
        problems("users: {a: {}}"),
        ["1: users: must have either `password` or `verifier`"]
    );
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
fn a_control_plane_needs_users_and_a_certificate() {
    let found = problems("mode: control-plane\n");
    assert_eq!(found.len(), 2, "{found:?}");
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
