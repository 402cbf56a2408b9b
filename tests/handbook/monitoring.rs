//! The rules for Prometheus and the dashboard for Grafana: they must go by metrics
//! that there are.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::packaging;
use crate::seen::{http, metrics_address};
use crate::support::{Server, Session, Transport, eventually};

const RULES: &str = "monitoring/duckgres.rules.yml";
const DASHBOARD: &str = "monitoring/duckgres.dashboard.json";

/// All metrics' names in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)))
        .filter(|word| word.starts_with("duckgres_") && !word.contains(':'))
        .collect()
}

#[test]
fn rules_and_dashboard_go_by_metrics_that_a_scrape_has() {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL has no metrics");
        return;
    }
    let server = Server::duckgres(&["--metrics-address", "127.0.0.1:0"]);
    // Some are there only if they have something to say.
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("begin");
    let scrape = eventually("a scrape that knows who is pinned", || {
        let scrape = http(metrics_address(&server), "GET /metrics");
        scrape
            .contains("duckgres_worker_sessions_pinned{")
            .then_some(scrape)
    });
    let samples: String = scrape
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{}\n", line.split(['{', ' ']).next().unwrap()))
        .collect();
    let there = names(&samples);
    for file in [RULES, DASHBOARD] {
        let text = fs::read_to_string(packaging(file)).unwrap();
        let used = names(&text);
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&there).collect();
        assert!(
            unknown.is_empty(),
            "{file} goes by {unknown:?}, which no scrape has"
        );
    }
}

/// What a record or an alert goes by may be a record.
#[test]
fn the_records_that_alerts_go_by_are_made() {
    let text = fs::read_to_string(packaging(RULES)).unwrap();
    let made: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .collect();
    for word in text
        .split_whitespace()
        .filter(|word| word.starts_with("duckgres:"))
    {
        assert!(made.contains(&word), "{word} is not recorded");
    }
    assert!(!made.is_empty());
}

#[test]
fn the_dashboard_is_json_whose_panels_all_ask_something() {
    let text = fs::read_to_string(packaging(DASHBOARD)).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(!panels.is_empty());
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            targets
                .iter()
                .any(|target| target["expr"].as_str().unwrap().contains("duckgres_")),
            "{panel}"
        );
    }
}

#[test]
fn promtool_accepts_the_rules() {
    let Ok(output) = Command::new("promtool")
        .args(["check", "rules"])
        .arg(packaging(RULES))
        .output()
    else {
        println!("skipped: promtool is missing (Debian's package prometheus)");
        return;
    };
    assert!(output.status.success(), "{output:?}");
}
