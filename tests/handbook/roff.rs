//! The little of roff's man macros that the pages need. Source: groff_man(7).

/// Text as roff prints it unchanged, in which `this` is bold.
pub fn text(plain: &str) -> String {
    let mut made = String::new();
    for (at, line) in plain.lines().enumerate() {
        if at > 0 {
            made.push('\n');
        }
        if line.trim_start().starts_with(['.', '\'']) {
            made.push_str("\\&");
        }
        for (at, part) in line.trim().split('`').enumerate() {
            match at % 2 {
                0 => made.push_str(&escape(part)),
                _ => made.push_str(&format!("\\fB{}\\fR", escape(part))),
            }
        }
    }
    made
}

/// As [`text`], and backticks are backticks.
pub fn escape(plain: &str) -> String {
    let mut made = String::new();
    for character in plain.chars() {
        match character {
            '\\' => made.push_str("\\e"),
            '-' => made.push_str("\\-"),
            '\'' => made.push_str("\\(aq"),
            '"' => made.push_str("\\(dq"),
            '`' => made.push_str("\\(ga"),
            '^' => made.push_str("\\(ha"),
            '~' => made.push_str("\\(ti"),
            character => made.push(character),
        }
    }
    made
}

/// A page's first line.
pub fn title(name: &str, section: &str, manual: &str) -> String {
    format!(
        ".TH {} {section} \"\" \"duckgres {}\" \"{manual}\"\n",
        escape(name),
        env!("CARGO_PKG_VERSION")
    )
}

/// The heading of a section.
pub fn section(name: &str) -> String {
    format!(".SH {name}\n")
}

/// A heading within a section.
pub fn subsection(name: &str) -> String {
    format!(".SS {}\n", text(name))
}

/// A term, in roff, and what it means.
pub fn item(term: &str, meaning: &str) -> String {
    format!(".TP\n{term}\n{}\n", text(meaning))
}

/// Lines as they are, in the typewriter's letters.
pub fn example(lines: &str) -> String {
    let escaped: Vec<String> = lines
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{}", escape(line)),
            false => escape(line),
        })
        .collect();
    format!(".PP\n.RS 4\n.EX\n{}\n.EE\n.RE\n", escaped.join("\n"))
}
