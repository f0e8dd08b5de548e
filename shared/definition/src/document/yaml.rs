//! YAML events to a tree; one document, and none of the features that make YAML more than data.

use std::collections::HashSet;

use hopyard_contract::json::escape;
use hopyard_contract::problem::FieldError;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::{Document, Entry, Kind, MAX_DEPTH, Mark, Node, error_at, keep, scalar};

/// Reads one YAML document.
pub(crate) fn read(source: &str) -> Document {
    let mut loader = Loader { frames: Vec::new(), root: None, errors: Vec::new(), documents: 0 };
    let mut parser = Parser::new_from_str(source);
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => loader.on_event(event, span),
            // An alias without its anchor is the same mistake as one with it: aliases do not belong here.
            Err(error) if error.info().contains("unknown anchor") => {
                Err(error_at("yaml_feature", loader.pointer(), ALIAS, mark(*error.marker())))
            }
            // The parser looks far ahead and has a limit of its own.
            Err(error) if error.info().contains("recursion limit") => {
                Err(error_at("too_deep", "", format!("the definition nests deeper than {MAX_DEPTH} levels"), mark(*error.marker())))
            }
            Err(error) => Err(error_at("yaml_syntax", "", format!("the text is no YAML: {}", error.info()), mark(*error.marker()))),
        };
        if let Err(error) = step {
            loader.errors.push(error);
            return Document { root: None, errors: loader.errors };
        }
    }
    let root = loader.root.unwrap_or(Node { at: Mark { line: 1, column: 1 }, kind: Kind::Null });
    Document { root: Some(root), errors: loader.errors }
}

const ALIAS: &str = "aliases are not part of a definition; write the value out";

fn mark(marker: Marker) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(marker.line().max(1)), column: number(marker.col() + 1) }
}

enum Frame {
    List { at: Mark, items: Vec<Node> },
    Map { at: Mark, entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, Mark)> },
}

struct Loader {
    frames: Vec<Frame>,
    root: Option<Node>,
    errors: Vec<FieldError>,
    documents: usize,
}

impl Loader {
    /// Takes one event; an error ends the reading.
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Result<(), FieldError> {
        let at = mark(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(error_at("yaml_feature", "", "a file holds one definition; here a second document starts", at));
                }
            }
            Event::Alias(_) => {
                self.feature(ALIAS, at);
                self.value(Node { at, kind: Kind::Broken });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = self.refuse_properties(anchor, tag.is_some(), at);
                self.on_scalar(text.into_owned(), style, tagged, at);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), at);
                self.open(Frame::List { at, items: Vec::new() }, at)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.is_some(), at);
                self.open(Frame::Map { at, entries: Vec::new(), seen: HashSet::new(), key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame::List { at, items }) => self.value(Node { at, kind: Kind::List(items) }),
                Some(Frame::Map { at, entries, .. }) => self.value(Node { at, kind: Kind::Map(entries) }),
                None => {}
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn on_scalar(&mut self, text: String, style: ScalarStyle, tagged: bool, at: Mark) {
        let has_nul = text.contains('\0');
        if let Some(Frame::Map { key: key @ None, .. }) = self.frames.last_mut() {
            *key = Some((text, at));
            if has_nul {
                let pointer = self.pointer();
                keep(&mut self.errors, || error_at("control_char", pointer, "a key has no NUL characters", at));
            }
            return;
        }
        let kind = if tagged {
            Kind::Broken
        } else if has_nul {
            let pointer = self.pointer();
            keep(&mut self.errors, || error_at("control_char", pointer, "a text has no NUL characters", at));
            Kind::Broken
        } else if style != ScalarStyle::Plain {
            Kind::Text(text)
        } else if let Some(kind) = scalar::resolve(&text) {
            kind
        } else {
            let pointer = self.pointer();
            keep(&mut self.errors, || error_at("number_range", pointer, format!("`{text}` is no number that can be kept"), at));
            Kind::Broken
        };
        self.value(Node { at, kind });
    }

    fn open(&mut self, frame: Frame, at: Mark) -> Result<(), FieldError> {
        if matches!(self.frames.last(), Some(Frame::Map { key: None, .. })) {
            return Err(error_at("yaml_feature", self.pointer(), "a key is a text, not a list or a map", at));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(error_at("too_deep", "", format!("the definition nests deeper than {MAX_DEPTH} levels"), at));
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Puts a finished value into its place.
    fn value(&mut self, node: Node) {
        let mut repeated = None;
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, seen, key, .. }) => match key.take() {
                // An alias in the place of a key; it has been complained about.
                None => *key = Some((String::new(), node.at)),
                Some((name, key_at)) if seen.insert(name.clone()) => entries.push(Entry { key: name, key_at, value: node }),
                Some(again) => repeated = Some(again),
            },
        }
        if let Some((name, at)) = repeated {
            let pointer = self.pointer();
            keep(&mut self.errors, || {
                error_at(
                    "duplicate_key",
                    format!("{pointer}/{}", escape(&name)),
                    format!("the key `{}` stands twice", crate::suggest::short(&name)),
                    at,
                )
            });
        }
    }

    /// Complains about anchors and tags; says whether there was a tag.
    fn refuse_properties(&mut self, anchor: usize, tagged: bool, at: Mark) -> bool {
        if anchor != 0 {
            self.feature("anchors are not part of a definition; write the value out where it is needed", at);
        }
        if tagged {
            self.feature("tags are not part of a definition", at);
        }
        tagged
    }

    fn feature(&mut self, detail: &str, at: Mark) {
        let pointer = self.pointer();
        keep(&mut self.errors, || error_at("yaml_feature", pointer, detail, at));
    }

    /// The pointer to the value that comes next.
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for frame in &self.frames {
            match frame {
                Frame::List { items, .. } => pointer.push_str(&format!("/{}", items.len())),
                Frame::Map { key: Some((name, _)), .. } => {
                    pointer.push('/');
                    pointer.push_str(&escape(name));
                }
                Frame::Map { key: None, .. } => {}
            }
        }
        pointer
    }
}
