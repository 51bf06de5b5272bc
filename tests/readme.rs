//! Holds the README to the program: its table of venues, its paths, its bot.

use countersign::venue::VENUES;

const README: &str = include_str!("../README.md");

#[test]
fn the_table_of_venues_is_the_program_s() {
    for (venue, says) in VENUES {
        let row = format!("| `{}` | {says} |", venue.name());
        assert!(README.contains(&row), "the README lacks the row\n{row}");
    }
}

#[test]
fn every_path_of_a_venue_is_told() {
    for endpoint in VENUES.iter().flat_map(|(venue, _)| venue.endpoints()) {
        let Some(path) = endpoint.local_path else { continue };
        assert!(README.contains(&format!("`{path}`")), "the README does not tell of {path}");
        let real = format!("`{}{}`", endpoint.host, endpoint.path);
        assert!(endpoint.host.is_empty() || README.contains(&real), "the README does not tell of {real}");
    }
}

#[test]
fn every_sentence_of_a_refused_login_is_told() {
    use countersign::fault::to_client;
    use countersign::session::End;
    for end in [
        End::AuthenticationRequired,
        End::AuthenticationTimeout,
        End::TokenMissing,
        End::InvalidToken,
        End::AuthenticationFailed,
        End::MaxConnections,
    ] {
        let sentence = to_client(end, 0).expect("a close frame").reason;
        assert!(README.contains(&format!("`{sentence}`")), "the README lacks `{sentence}`");
    }
}
