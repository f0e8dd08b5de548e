//! Opaque cursors: where a list goes on, sealed with the list and the namespace they belong to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hopyard_contract::Name;
use hopyard_contract::json;

use super::params::{Params, bad};
use crate::problem::Answer;

/// Hex digits of the seal.
const SEAL: usize = 16;

/// The cursor of a list after the item with this key.
pub fn seal(list: &str, namespace: &Name, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{key}", checksum(list, namespace, key)))
}

/// The key in `cursor`, if the request has one.
///
/// # Errors
/// 400 `bad_cursor` for one that this list of this namespace has not given out.
pub(crate) fn read<K: std::str::FromStr>(params: &Params, list: &str, namespace: &Name) -> Answer<Option<K>> {
    let Some(text) = params.one("cursor") else { return Ok(None) };
    match open(list, namespace, text).and_then(|key| key.parse().ok()) {
        Some(key) => Ok(Some(key)),
        None => Err(bad("cursor", 400, "bad_cursor", "is no cursor of this list")),
    }
}

/// The key in a cursor, if this list of this namespace has given it out.
pub fn open(list: &str, namespace: &Name, cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (seal, key) = text.split_at_checked(SEAL)?;
    (seal == checksum(list, namespace, key)).then(|| key.to_owned())
}

/// Guards against mistakes, not against forgers: a key alone opens nothing that its namespace does not show anyway.
fn checksum(list: &str, namespace: &Name, key: &str) -> String {
    let mut hash = json::hash(&(list, namespace, key));
    hash.truncate(SEAL);
    hash
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;
    use hopyard_contract::RunId;

    fn ns(text: &'static str) -> Name {
        Name::literal(text)
    }

    #[test]
    fn a_cursor_opens_only_where_it_was_made() {
        let id = RunId::mint();
        let cursor = seal("runs", &ns("default"), &id.to_string());
        let query = params(&format!("cursor={cursor}"));
        assert_eq!(read::<RunId>(&query, "runs", &ns("default")).unwrap(), Some(id));
        let refused = (400, "bad_cursor".to_owned());
        assert_eq!(told(read::<RunId>(&query, "runs", &ns("other"))), refused);
        assert_eq!(told(read::<RunId>(&query, "workflows", &ns("default"))), refused);
    }

    #[test]
    fn a_changed_cursor_is_refused_at_every_place() {
        let cursor = seal("runs", &ns("default"), &RunId::mint().to_string());
        for i in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let query = params(&format!("cursor={}", String::from_utf8(changed).unwrap()));
            assert_eq!(told(read::<RunId>(&query, "runs", &ns("default"))), (400, "bad_cursor".to_owned()), "{i}");
        }
        for text in ["", "x", "%00", "💥", "AAAA", &cursor[1..], &format!("{cursor}=")] {
            let uri = format!("cursor={text}");
            if uri.is_ascii() {
                assert_eq!(told(read::<RunId>(&params(&uri), "runs", &ns("default"))).0, 400, "{text}");
            }
        }
        assert_eq!(read::<RunId>(&params(""), "runs", &ns("default")).unwrap(), None);
    }
}
