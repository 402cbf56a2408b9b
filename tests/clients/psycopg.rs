//! psycopg 3: the functions of psycopg.py, each over every road.

use super::roads;
use crate::support::Server;
use crate::support::programs::{python, run};

#[track_caller]
fn psycopg(function: &str) {
    for road in roads(Server::shared()) {
        let mut command = python();
        command.arg("-B").arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/psycopg_client.py"
        ));
        let output = run(command.arg(function).arg(&road), "");
        assert!(output.status.success(), "{function} over {road}:\n{}", output.err);
    }
}

#[test]
fn psycopg_knows_the_server() {
    psycopg("session_facts");
}

#[test]
fn psycopg_passes_values_in_text() {
    psycopg("values_in_text");
}

#[test]
fn psycopg_passes_values_in_binary() {
    psycopg("values_in_binary");
}

#[test]
fn psycopg_reads_the_values_of_a_table_in_both_formats() {
    psycopg("columns_of_every_type");
}

#[test]
fn psycopg_prepares_statements_and_gives_them_up() {
    psycopg("prepared_statements");
}

#[test]
fn psycopg_pipelines() {
    psycopg("pipeline");
}

#[test]
fn psycopg_sees_an_error_in_a_pipeline() {
    psycopg("pipeline_with_an_error");
}

#[test]
fn psycopg_fetches_from_a_cursor_on_the_server() {
    psycopg("server_side_cursor");
}

#[test]
fn psycopg_streams_row_by_row() {
    psycopg("streaming");
}

#[test]
fn psycopg_copies_in_and_out() {
    psycopg("copy");
}

#[test]
fn psycopg_commits_and_rolls_back() {
    psycopg("transactions");
}

#[test]
fn psycopg_raises_the_right_exceptions() {
    psycopg("errors");
}

#[test]
fn psycopg_cancels() {
    psycopg("cancel");
}

#[test]
fn psycopg_executes_many() {
    psycopg("execute_many");
}

#[test]
fn psycopg_works_asynchronously() {
    psycopg("asynchronous");
}
