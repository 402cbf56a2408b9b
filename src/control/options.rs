//! The `options` parameter: `-c name=value`, `--name=value`.

use super::fatal::Fatal;

/// Splits the text as PostgreSQL does (white space separates, a backslash
/// takes the next character as it is) and reads the settings in it.
pub fn parse(options: &str) -> Result<Vec<(String, String)>, Fatal> {
    let mut words = split(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let (flag, setting) = match word.strip_prefix("-c") {
            Some("") => {
                let next = words.next().ok_or_else(|| invalid(&word))?;
                ("-c ", next)
            }
            Some(attached) => ("-c ", attached.to_owned()),
            None => match word.strip_prefix("--") {
                Some(long) => ("--", long.to_owned()),
                None => return Err(invalid(&word)),
            },
        };
        match setting.split_once('=') {
            Some(("", _)) => return Err(invalid(&word)),
            // "-" in a name stands for "_", as in PostgreSQL.
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => return Err(Fatal::new("42601", format!("{flag}{setting} requires a value"))),
        }
    }
    Ok(settings)
}

fn invalid(word: &str) -> Fatal {
    Fatal::new(
        "42601",
        format!("invalid command-line argument for server process: {word}"),
    )
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            _ if character.is_ascii_whitespace() || character == '\x0b' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &str) -> Vec<(String, String)> {
        parse(options).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn both_forms_of_a_setting_are_read() {
        let all = [pair("a", "1"), pair("b", "2"), pair("c_d", "3=4"), pair("e", "")];
        assert_eq!(pairs("-c a=1 -cb=2  --c-d=3=4\t-c e="), all);
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("   "), []);
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        assert_eq!(
            pairs(r"-c search_path=a,\ b\\c"),
            [pair("search_path", r"a, b\c")]
        );
        assert_eq!(pairs(r"-c a=b\"), [pair("a", "b")]);
    }

    #[test]
    fn anything_else_is_refused() {
        for (options, message) in [
            ("-c", "invalid command-line argument for server process: -c"),
            ("-c a", "-c a requires a value"),
            ("--a", "--a requires a value"),
            ("-d 5", "invalid command-line argument for server process: -d"),
            ("a=1", "invalid command-line argument for server process: a=1"),
            ("-c =1", "invalid command-line argument for server process: -c"),
        ] {
            let fatal = parse(options).unwrap_err();
            assert_eq!(
                (fatal.code, fatal.message.as_str()),
                ("42601", message),
                "{options}"
            );
        }
    }
}
