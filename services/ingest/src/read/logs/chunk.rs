//! Pieces of a log as JSON and back: text where the bytes are UTF-8, base64 where they are not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hopyard_contract::log::Chunk;
use hopyard_contract::log::frame::Piece;

/// A piece for a reader.
pub(super) fn of_piece(piece: Piece) -> Chunk {
    let Piece { offset, stream, at, bytes } = piece;
    let (text, b64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    Chunk { offset, stream, at, text, b64 }
}

/// A chunk off the bus; `None` if it holds no bytes, or none that can be read.
pub(super) fn piece_of(chunk: Chunk) -> Option<Piece> {
    let bytes = match (chunk.text, chunk.b64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(b64)) => STANDARD.decode(b64).ok()?,
        (None, None) => return None,
    };
    Some(Piece { offset: chunk.offset, stream: chunk.stream, at: chunk.at, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::log::Stream;

    #[test]
    fn any_bytes_come_back() {
        for (bytes, is_text) in [(b"plain \0 \x1b[0m".to_vec(), true), (vec![0xff, 0x00], false), ("é".as_bytes()[..1].to_vec(), false)] {
            let piece = Piece { offset: 3, stream: Stream::Stdout, at: chrono::DateTime::UNIX_EPOCH, bytes };
            let chunk = of_piece(piece.clone());
            assert_eq!((chunk.text.is_some(), chunk.b64.is_none()), (is_text, is_text));
            assert_eq!(piece_of(chunk), Some(piece));
        }
    }
}
