//! Completions of `duckgres` for the shells.

use std::process::Command;

use clap_complete::Shell;
use duckgres::config::cli;

use super::{is_up_to_date, is_writing, packaging};

/// Each with its file's name, which is where the shell looks for it.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "completions/duckgres.bash"),
    (Shell::Zsh, "completions/_duckgres"),
    (Shell::Fish, "completions/duckgres.fish"),
];

#[test]
fn the_completions_are_those_of_the_command_line() {
    for (shell, path) in SHELLS {
        let mut made = Vec::new();
        clap_complete::generate(shell, &mut cli::command(), "duckgres", &mut made);
        is_up_to_date(path, &String::from_utf8(made).unwrap());
    }
}

/// Asks bash itself what may follow.
#[test]
fn bash_completes_commands_and_flags() {
    if is_writing() {
        return;
    }
    let complete = |words: &[&str]| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={}; _duckgres duckgres '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            packaging("completions/duckgres.bash").display(),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
            words = words.join(" "),
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["duckgres", "restart"]), "restart-workers");
    assert_eq!(complete(&["duckgres", "status", "--wa"]), "--watch");
    assert_eq!(complete(&["duckgres", "--tls-mi"]), "--tls-min-version");
}
