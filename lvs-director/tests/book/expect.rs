//! Whether what was printed is what the page shows. `…` in a line stands for any text, `...` as a line for any lines;
//! blanks at the ends of lines do not count. In rows of `--stats` the counts of packets and bytes, and in rows of `-c`
//! times and clients' ports, stand for any, so that a page shows them as they look.

/// Whether `printed` is what `shown` says; with `may_go_on`, whether it begins so.
pub fn is_as_shown(shown: &[String], printed: &[&str], may_go_on: bool) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, None) => true,
        (None, Some(_)) => may_go_on,
        (Some((first, rest)), _) if first == "..." => {
            rest.is_empty() || (0..=printed.len()).any(|skipped| is_as_shown(rest, &printed[skipped..], may_go_on))
        }
        (Some(_), None) => false,
        (Some((shown, rest)), Some((line, others))) => {
            let is_it = line_is_as_shown(shown, line.trim_end());
            let is_such_a_row = || match (row(shown), row(line)) {
                (Some(shown), Some(line)) => {
                    shown.len() == line.len()
                        && shown.iter().zip(&line).all(|(shown, word)| line_is_as_shown(shown, word))
                }
                _ => false,
            };
            (is_it || is_such_a_row()) && is_as_shown(rest, others, may_go_on)
        }
    }
}

fn line_is_as_shown(shown: &str, line: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    let starts = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    starts.into_iter().any(|at| line_is_as_shown(rest, &line[at..]))
}

/// A row of a listing, with what may differ replaced. No count stands for zero.
fn row(line: &str) -> Option<Vec<String>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let any = |word: &str| if word == "0" { "0" } else { "any" }.to_owned();
    match words[..] {
        // Service or server, connections, packets and bytes in either direction.
        [kind, at, connections, .., _, _] if words.len() == 7 && words[2..].iter().all(is_number) => {
            let same = [kind, at, connections].map(str::to_owned);
            Some(same.into_iter().chain(words[3..].iter().map(|word| any(word))).collect())
        }
        // Protocol, time left, state, client, virtual address, server.
        [protocol, time, state, client, at, server] if time.split(':').all(|part| is_number(&part)) => {
            let client = client.rsplit_once(':')?.0;
            Some([protocol, state, client, at, server].map(str::to_owned).to_vec())
        }
        _ => None,
    }
}

/// The lines of a text, without empty ones at its end.
pub fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().collect()
}
