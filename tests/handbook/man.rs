//! The man pages. The one of the units is written by hand and only checked.

use std::process::Command as Process;

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use duckgres::config::{SETTINGS, Setting, WorkerConfig, cli};

use super::{is_up_to_date, is_writing, packaging, roff};

/// All pages, and one of each name that leads to another.
const PAGES: [&str; 7] = [
    "duckgres.1",
    "duckgres.yaml.5",
    "duckgres-worker.8",
    "duckgres.service.8",
    "duckgres.socket.8",
    "duckgres.target.8",
    "duckgres-worker@.service.8",
];

#[test]
fn the_page_of_the_program_is_what_its_command_line_says() {
    is_up_to_date("man/duckgres.1", &duckgres());
}

#[test]
fn the_page_of_the_worker_is_what_its_command_line_says() {
    is_up_to_date("man/duckgres-worker.8", &worker());
}

#[test]
fn the_page_of_the_configuration_is_what_the_settings_say() {
    is_up_to_date("man/duckgres.yaml.5", &yaml());
}

#[test]
fn groff_has_nothing_to_say_against_any_page() {
    if is_writing() {
        return;
    }
    if Process::new("groff").arg("--version").output().is_err() {
        println!("skipped: groff is missing (Debian's package groff-base)");
        return;
    }
    for page in PAGES {
        let text = std::fs::read_to_string(packaging("man").join(page)).unwrap();
        if let Some(other) = text.trim_end().strip_prefix(".so man8/") {
            assert!(PAGES.contains(&other), "{page} leads to {other}");
            continue;
        }
        let shown = Process::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-P-cbou"])
            .arg(packaging("man").join(page))
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() && complaints.is_empty(),
            "{page}: {complaints}"
        );
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(
            text.contains("NAME") && text.contains("SEE ALSO"),
            "{page}:\n{text}"
        );
    }
}

/// What a page calls another page must be one of ours, or known.
#[test]
fn pages_lead_to_pages_that_there_are() {
    if is_writing() {
        return;
    }
    const OTHERS: [&str; 9] = [
        "systemctl(1)",
        "journalctl(1)",
        "psql(1)",
        "systemd.unit(5)",
        "systemd.exec(5)",
        "systemd.socket(5)",
        "systemd.service(5)",
        "systemd\\-creds(1)",
        "file\\-hierarchy(7)",
    ];
    for page in PAGES {
        let text = std::fs::read_to_string(packaging("man").join(page)).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix(".BR ")) {
            let Some(end) = line.find(')') else { continue };
            let name = line[..=end].replace(' ', "");
            if !name.contains('(') {
                continue;
            }
            let file = name.replace("\\-", "-").replace('(', ".").replace(')', "");
            assert!(
                PAGES.contains(&file.as_str()) || OTHERS.contains(&name.as_str()),
                "{page} leads to {name}"
            );
        }
    }
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut page = Vec::new();
    render(&mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn see_also(pages: &[&str]) -> String {
    let lines: Vec<String> = pages
        .iter()
        .map(|page| {
            let (name, section) = page.split_once('(').unwrap();
            format!(".BR {} ({section}", roff::escape(name))
        })
        .collect();
    format!("{}{}\n", roff::section("SEE ALSO"), lines.join(",\n"))
}

fn duckgres() -> String {
    let command = cli::command().disable_help_subcommand(true);
    let mut page = roff::title("duckgres", "1", "User Commands");
    page.push_str(&roff::section("NAME"));
    page.push_str("duckgres \\- DuckDB as a PostgreSQL server\n");
    page.push_str(&roff::section("SYNOPSIS"));
    page.push_str(
        "\\fBduckgres\\fR [\\fIOPTIONS\\fR]\n.br\n\\fBduckgres\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n",
    );
    page.push_str(&roff::section("DESCRIPTION"));
    let about = command.get_long_about().unwrap().to_string();
    page.push_str(
        &about
            .split("\n\n")
            .map(roff::text)
            .collect::<Vec<_>>()
            .join("\n.PP\n"),
    );
    page.push_str(
        "\n.PP\nEvery setting has the same meaning as an option, as a variable and in the file;\n\
         .BR duckgres.yaml (5)\nlists them.\n",
    );
    page.push_str(&roff::section("COMMANDS"));
    for subcommand in command.get_subcommands() {
        page.push_str(&roff::subsection(&format!("duckgres {}", subcommand.get_name())));
        page.push_str(&roff::text(&subcommand.get_about().unwrap().to_string()));
        page.push_str(".\n");
        page.push_str(&options_of(subcommand));
    }
    page.push_str(&roff::section("OPTIONS"));
    page.push_str("These are the server's.\n");
    for argument in command.get_arguments() {
        page.push_str(&option(argument));
    }
    page.push_str(&roff::section("EXIT STATUS"));
    page.push_str(&roff::item(
        "0",
        "It did what was asked; the server has stopped in order.",
    ));
    page.push_str(&roff::item(
        "1",
        "It did not, and standard error says why; or sessions had to be cut short when the server stopped.",
    ));
    page.push_str(&roff::item("2", "The command line is wrong."));
    page.push_str(&roff::section("SIGNALS"));
    page.push_str(&roff::item(
        "SIGTERM, SIGINT",
        "Idle sessions end, running statements finish (`--shutdown-timeout`), and the server stops. A second \
         one does not wait. With workers that systemd runs, sessions go on.",
    ));
    page.push_str(&roff::item(
        "SIGHUP",
        "As `duckgres reload`; the log has the result.",
    ));
    page.push_str(&roff::section("FILES"));
    for (path, meaning) in [
        (
            "~/.local/share/duckgres",
            "The data directory without any configuration: databases, the certificate, the password. \
             `$XDG_DATA_HOME/duckgres` if that variable is set.",
        ),
        ("/etc/duckgres/duckgres.yaml", "The configuration of the service."),
        ("/var/lib/duckgres/control", "The state of the service."),
        (
            "/var/lib/duckgres/data",
            "The databases of the service's workers.",
        ),
    ] {
        page.push_str(&roff::item(&format!("\\fI{}\\fR", roff::escape(path)), meaning));
    }
    page.push_str(&roff::section("EXAMPLES"));
    for (words, lines) in [
        (
            "A server on the local host, which prints how to connect:",
            "duckgres",
        ),
        (
            "Another server beside it:",
            "duckgres --data-dir /srv/second --port 6543",
        ),
        (
            "Is the configuration right?",
            "duckgres check-config --config /etc/duckgres/duckgres.yaml",
        ),
        (
            "What is the service doing, again every two seconds?",
            "sudo duckgres status --watch",
        ),
    ] {
        page.push_str(&format!(".PP\n{words}\n{}", roff::example(lines)));
    }
    page.push_str(&see_also(&[
        "duckgres.yaml(5)",
        "duckgres.service(8)",
        "duckgres-worker(8)",
        "psql(1)",
    ]));
    page
}

/// The options of a command, unless they are the server's.
fn options_of(command: &Command) -> String {
    let arguments: Vec<&Arg> = command.get_arguments().collect();
    match arguments.len() > 10 {
        true => "Takes the server's options.\n".to_owned(),
        false => arguments.into_iter().map(option).collect(),
    }
}

fn option(argument: &Arg) -> String {
    let mut term = argument
        .get_long()
        .map(|long| format!("\\fB\\-\\-{}\\fR", roff::escape(long)))
        .unwrap_or_default();
    let names = argument.get_value_names().unwrap_or_default();
    let optional = argument
        .get_num_args()
        .is_some_and(|count| count.min_values() == 0);
    for name in names.iter().filter(|_| argument.get_action().takes_values()) {
        let name = roff::escape(name);
        match (argument.get_long(), optional) {
            (None, _) => term.push_str(&format!("\\fI{name}\\fR")),
            (_, true) => term.push_str(&format!(" [\\fI{name}\\fR]")),
            (_, false) => term.push_str(&format!(" \\fI{name}\\fR")),
        }
    }
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    roff::item(&term, &help)
}

fn worker() -> String {
    let command = WorkerConfig::command();
    let man = Man::new(command)
        .section("8")
        .manual("System Administration")
        .date("");
    let mut page = rendered(|page| man.render_title(page));
    page.push_str(&rendered(|page| man.render_name_section(page)));
    page.push_str(&rendered(|page| man.render_synopsis_section(page)));
    page.push_str(&roff::section("DESCRIPTION"));
    page.push_str(&roff::text(
        "A worker of duckgres: DuckDB, and the sessions that use it, on the clients' own sockets. It is \
         started by systemd or by `duckgres`, and not by hand: its two listening sockets are inherited \
         (`LISTEN_FDS`), and it is told no secrets.\n",
    ));
    page.push_str(
        "\n.PP\nUnder systemd the options below are variables in\n.I /etc/default/duckgres\\-worker\n\
         and\n.IR /etc/default/duckgres\\-worker\\-N .\nWhat\n.BR duckgres.yaml (5)\nsays about workers, the \
         control plane tells them.\n",
    );
    let options = rendered(|page| man.render_options_section(page));
    // To roff a blank at the beginning of a line is the end of a paragraph.
    for line in options.lines() {
        page.push_str(line.trim_start());
        page.push('\n');
    }
    page.push_str(&roff::section("SIGNALS"));
    page.push_str(&roff::item(
        "SIGTERM",
        "Under a supervisor that restarts it, its sessions go on in its next process; when it is stopped for \
         good, in other workers. Those that cannot go on are waited for (drain_timeout, shutdown_timeout) and \
         then ended with SQLSTATE 57P01.",
    ));
    page.push_str(&see_also(&[
        "duckgres(1)",
        "duckgres.yaml(5)",
        "duckgres.service(8)",
    ]));
    page
}

const YAML: &str = "\
host: \"*\"
data_dir: /srv/duckgres
tls:
  cert: /etc/ssl/duckgres.crt
  key: /etc/ssl/duckgres.key
users:
  alice: \"a password\"
  bob:
    password: \"SCRAM-SHA-256$4096:...\"
    databases: [bob, sales]
  operator:
    admin: on
memory_limit: 8GB";

fn yaml() -> String {
    let mut page = roff::title("duckgres.yaml", "5", "File Formats");
    page.push_str(&roff::section("NAME"));
    page.push_str("duckgres.yaml \\- configuration of duckgres\n");
    page.push_str(&roff::section("SYNOPSIS"));
    page.push_str(".I /etc/duckgres/duckgres.yaml\n");
    page.push_str(&roff::section("DESCRIPTION"));
    page.push_str(
        "YAML. The service reads the file above, \\fBduckgres \\-\\-config\\fR \\fIFILE\\fR or\n\
         \\fBDUCKGRES_CONFIG\\fR name another one.\n.PP\n\
         Flags win over environment variables, these over systemd\\(aqs credentials, these over the file.\n\
         A dot in a name below stands for nesting: \\fBtls.cert\\fR is the key \\fBcert\\fR in the map\n\
         \\fBtls\\fR. Unknown keys are errors.\n.PP\n\
         \\fBduckgres check\\-config\\fR says everything that is wrong with a file, and where.\n\
         \\fBduckgres reload\\fR, or \\fBsystemctl reload duckgres\\fR, puts a changed one into effect\n\
         without any client noticing.\n",
    );
    page.push_str(&roff::section("SETTINGS"));
    for setting in SETTINGS {
        page.push_str(&entry(setting));
    }
    page.push_str(&roff::section("EXAMPLE"));
    page.push_str(&roff::example(YAML));
    page.push_str(&see_also(&[
        "duckgres(1)",
        "duckgres.service(8)",
        "systemd-creds(1)",
    ]));
    page
}

fn entry(setting: &Setting) -> String {
    let form = match setting.list {
        true => format!("a list; each {}", setting.form),
        false => setting.form.to_owned(),
    };
    let default = match (setting.default, setting.otherwise) {
        ("", "") => "none",
        ("", otherwise) => otherwise,
        (default, _) => default,
    };
    let mut entry = roff::item(
        &format!("\\fB{}\\fR", roff::escape(setting.name)),
        setting.doc.trim(),
    );
    let mut line = |what: &str, value: &str| {
        entry.push_str(&format!(".br\n{what}: {}\n", roff::escape(value)));
    };
    line("Form", &form);
    line("Default", default);
    if !setting.flag.is_empty() {
        line("Flag", &format!("--{}", setting.flag));
    }
    if !setting.env.is_empty() {
        line("Variable", setting.env);
    }
    for alias in setting.aliases {
        line("Also", alias);
    }
    entry
}
