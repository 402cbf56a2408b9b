//! A status as a person reads it.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

use crate::proto::StatusReply;

const UNKNOWN: &str = "-";

/// A heading, and a table for everything of which there is something.
pub(super) fn text(status: &StatusReply) -> String {
    let mut text = format!(
        "duckgres {}, process {}, up {}\n{}\n{}",
        status.version,
        status.process_id,
        duration(status.uptime_seconds),
        status.data_dir,
        match status.sessions {
            1 => "1 session".to_owned(),
            many => format!("{many} sessions"),
        },
    );
    if status.max_connections > 0 {
        text += &format!(" of at most {}", status.max_connections);
    }
    if !status.metrics_url.is_empty() {
        text += &format!(", metrics on {}", status.metrics_url);
    }
    text.push('\n');
    text += &workers(status);
    text += &section(
        "Databases",
        &["name", "worker", "sessions"],
        status
            .databases
            .iter()
            .map(|database| {
                vec![
                    plain(&database.name),
                    database.worker.to_string(),
                    database.sessions.to_string(),
                ]
            })
            .collect(),
    );
    text += &section(
        "Users",
        &["name", "sessions"],
        status
            .users
            .iter()
            .map(|user| vec![plain(&user.name), user.sessions.to_string()])
            .collect(),
    );
    text += &section(
        "Banned",
        &["address", "for"],
        status
            .bans
            .iter()
            .map(|ban| vec![ban.network.clone(), duration(ban.seconds_left)])
            .collect(),
    );
    text
}

fn workers(status: &StatusReply) -> String {
    let rows = status.workers.iter().map(|worker| {
        let engine = worker.engine_version.as_deref();
        vec![
            worker.id.to_string(),
            match worker.in_the_way.as_str() {
                "" => worker.state.clone(),
                waits => format!("{}: {waits}", worker.state),
            },
            or_unknown(worker.process_id, |id| id.to_string()),
            or_unknown(worker.uptime_seconds, duration),
            worker.sessions.to_string(),
            or_unknown(worker.pinned_sessions, |count| count.to_string()),
            worker.frozen_sessions.to_string(),
            worker.moved_sessions.to_string(),
            or_unknown(worker.databases, |count| count.to_string()),
            or_unknown(worker.resident_bytes, bytes),
            worker.restarts.to_string(),
            or_unknown(worker.version.as_ref(), |version| {
                format!("{version}, DuckDB {}", engine.unwrap_or(UNKNOWN))
            }),
        ]
    });
    section(
        "Workers",
        &[
            "worker",
            "state",
            "process",
            "up",
            "sessions",
            "pinned",
            "frozen",
            "moved",
            "databases",
            "memory",
            "restarts",
            "version",
        ],
        rows.collect(),
    )
}

fn or_unknown<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// Columns whose cells are all numbers, with or without a unit, stand to the right.
fn section(title: &str, names: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let is_number = |cell: &String| cell == UNKNOWN || cell.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> = (0..names.len())
        .map(|column| names[column] != "name" && names[column] != "version")
        .zip(0..)
        .map(|(may, column): (bool, usize)| may && rows.iter().all(|row| is_number(&row[column])))
        .collect();
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_style(TableComponent::VerticalLines, ' ')
        .set_style(TableComponent::HeaderLines, '─')
        .set_style(TableComponent::MiddleHeaderIntersections, '─')
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(names.to_vec())
        .add_rows(rows);
    for (column, right) in table.column_iter_mut().zip(right) {
        if right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("\n{title}\n");
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A name cannot do anything to a terminal.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The two largest units: `3d 4h`, `5m 0s`, `12s`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// With the largest unit of which there is one.
fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{BanStatus, DatabaseStatus, UserStatus, WorkerStatus};

    #[test]
    fn quantities_are_written_for_people() {
        let written = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].map(duration);
        assert_eq!(
            written,
            ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "23h 59m", "1d 1h"]
        );
        assert_eq!([7, 2_048, 3 << 29].map(bytes), ["7 B", "2.0 KiB", "1.5 GiB"]);
    }

    #[test]
    fn what_is_unknown_is_a_dash_and_what_there_is_none_of_is_left_out() {
        let worker = WorkerStatus {
            id: 3,
            state: "not answering".into(),
            ..WorkerStatus::default()
        };
        let mut status = StatusReply {
            workers: vec![worker],
            ..StatusReply::default()
        };
        let bare = text(&status);
        let row = bare.lines().find(|line| line.contains("not answering")).unwrap();
        let cells: Vec<&str> = row
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "3",
                "not answering",
                "-",
                "-",
                "0",
                "-",
                "0",
                "0",
                "-",
                "-",
                "0",
                "-"
            ]
        );
        assert!(!bare.contains("Users") && !bare.contains("Banned") && !bare.contains("metrics"));

        status.databases = vec![DatabaseStatus {
            name: "sa\x1bles".into(),
            worker: 3,
            sessions: 2,
        }];
        status.users = vec![UserStatus {
            name: "alice".into(),
            sessions: 2,
        }];
        status.bans = vec![BanStatus {
            network: "2001:db8::/64".into(),
            seconds_left: 61,
        }];
        let full = text(&status);
        let line = "─".repeat(18);
        let users = format!("\nUsers\n name    sessions\n{line}\n alice          2\n");
        assert!(full.contains(&users), "{full}");
        for word in ["sa\u{fffd}les", "alice", "2001:db8::/64", "1m 1s"] {
            assert!(full.contains(word), "{full}");
        }
    }
}
