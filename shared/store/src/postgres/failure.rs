//! What an error of PostgreSQL means to a caller.

use crate::Error;

/// Maps by SQLSTATE; whatever says that the connection or the server went away may have happened after a commit.
pub(super) fn failure(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default().into_owned();
            by_state(&code, format!("{} ({code})", error.message()))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Error::Unavailable(error.to_string()),
        sqlx::Error::Configuration(_) => Error::Url("a setting of the connection is not valid".to_owned()),
        other => Error::Refused(other.to_string()),
    }
}

fn by_state(code: &str, text: String) -> Error {
    match code {
        "55P03" => Error::Busy(text),
        // Serialisation, deadlock, full lock table; and a key that another transaction inserted after it was
        // looked for: the next try finds it.
        "40001" | "40P01" | "40003" | "53200" | "23505" => Error::Retry(text),
        // Statement timeout, idle transaction ended, read-only standby, server that starts or stops.
        "57014" | "25P03" | "25006" => Error::Unavailable(text),
        "42P01" | "42703" | "3F000" | "42883" => Error::Schema(text),
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, credentials, missing database, resources, operator intervention, system error.
            "08" | "28" | "3D" | "53" | "57" | "58" => Error::Unavailable(text),
            _ => Error::Refused(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_says_what_a_caller_can_do() {
        for code in ["40001", "40P01", "55P03", "53200", "23505", "57P01", "57014", "08006", "53300", "25P03"] {
            assert!(by_state(code, String::new()).is_transient(), "{code} may work later");
        }
        for code in ["23514", "23502", "P0001", "42P01", "3F000", "42501", "22P02"] {
            assert!(!by_state(code, String::new()).is_transient(), "{code} does not work later either");
        }
        assert!(matches!(by_state("23514", String::new()), Error::Refused(_)));
        assert!(matches!(by_state("P0001", String::new()), Error::Refused(_)));
        assert!(matches!(by_state("3F000", String::new()), Error::Schema(_)));
        assert!(matches!(by_state("40P01", String::new()), Error::Retry(_)));
        assert!(matches!(by_state("55P03", String::new()), Error::Busy(_)));
        assert!(matches!(by_state("57P03", String::new()), Error::Unavailable(_)));
        assert!(matches!(failure(sqlx::Error::PoolTimedOut), Error::Unavailable(_)));
    }
}
