//! Secrets: what definitions, errors and logs do not show.

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Words in the names of settings whose values are secrets.
const SECRET_WORDS: [&str; 5] = ["password", "passwd", "secret", "token", "credential"];

/// Whether the value of a setting of this name is not to be shown.
pub fn is_secret(setting: &str) -> bool {
    let setting = setting.to_lowercase();
    SECRET_WORDS.iter().any(|word| setting.contains(word))
}

/// A connection string as it may be shown: `postgres://user:***@host/db`, `host=h password=***`,
/// `s3://bucket?secret_access_key=***`.
pub fn without_secrets(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(end) => url.split_at(end + 3),
        None => ("", url),
    };
    if scheme.is_empty() {
        return words_without_secrets(rest, ' ');
    }
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    // A password may hold an @: the last one counts.
    let mut shown = match rest.rsplit_once('@') {
        None => format!("{scheme}{rest}"),
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:{HIDDEN}@{host}"),
            None => format!("{scheme}{user}@{host}"),
        },
    };
    if let Some(query) = query {
        shown.push('?');
        shown.push_str(&words_without_secrets(query, '&'));
    }
    shown
}

fn words_without_secrets(text: &str, separator: char) -> String {
    let mut words: Vec<String> = Vec::new();
    // A quoted value may hold the separator: what follows a secret up to the next name is part
    // of it.
    let mut in_secret = false;
    for word in text.split(separator) {
        match word.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                in_secret = true;
                words.push(format!("{name}={HIDDEN}"));
            }
            Some(_) => {
                in_secret = false;
                words.push(word.to_owned());
            }
            None if in_secret => {}
            None => words.push(word.to_owned()),
        }
    }
    words.join(&separator.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://u:p@ss/w0rd@h:5432/d", "postgres://u:***@h:5432/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=x", "postgres://h/d?user=u&password=***"),
            ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
            ("host=h user=u password='a b' dbname=d", "host=h user=u password=*** dbname=d"),
            ("localhost:9092,other:9092", "localhost:9092,other:9092"),
            ("file:///lake/a", "file:///lake/a"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn settings_that_hold_secrets_are_known_by_their_names() {
        assert!(is_secret("s3.Secret-Access-Key") && is_secret("sasl.password"));
        assert!(!is_secret("prefix"));
    }
}
