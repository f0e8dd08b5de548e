//! The form of a row: what is sent, through which doors, and the exact answer.

use std::borrow::Cow;

/// Text that is written into a table.
pub type Text = Cow<'static, str>;

/// One bad input and its answer; a class of the table is a group of rows under one number.
#[derive(Clone, Debug)]
pub struct Row {
    /// Number of the class, as in `docs/bad-inputs.md`.
    pub class: u8,
    /// What is sent, and where.
    pub input: Input,
    /// Status of the HTTP answer.
    pub status: u16,
    /// Stable code; empty where no HTTP message was read, so that the answer has no body.
    pub code: &'static str,
    /// Pointer to the field; empty for the whole body and for problems without a field.
    pub pointer: Text,
}

/// What is sent, and the doors that all have to give the same answer to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A whole body that nobody can read: alone, as a batch, as a request and as a command on the bus.
    Body(Vec<u8>),
    /// One run as JSON text: alone, as the item of a batch, as a request and as a command on the bus.
    Run(Text),
    /// A definition as text: stored, only checked, and brought along by a run through every door.
    Definition(Text),
    /// One HTTP request.
    Http(Http),
    /// The bytes of a connection.
    Raw(Vec<u8>),
}

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct Http {
    /// Method.
    pub method: &'static str,
    /// Path with query; `{run}` stands for the id of a run that is there, `{final}` for one that has ended.
    pub path: Text,
    /// Headers.
    pub headers: Vec<(&'static str, Text)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Row {
    /// A body that is no JSON, or JSON with a trap.
    pub fn body(class: u8, body: impl Into<Vec<u8>>, status: u16, code: &'static str, pointer: &'static str) -> Self {
        Self { class, input: Input::Body(body.into()), status, code, pointer: pointer.into() }
    }

    /// A run: the whole request if the text starts with a brace, else fields beside the name of a stored workflow.
    pub fn run(class: u8, fields: impl Into<Text>, code: &'static str, pointer: impl Into<Text>) -> Self {
        let fields = fields.into();
        let text = if fields.starts_with('{') { fields } else { format!(r#"{{"workflow":"sample",{fields}}}"#).into() };
        Self { class, input: Input::Run(text), status: 422, code, pointer: pointer.into() }
    }

    /// A definition; a code has the same status as in a body of JSON.
    pub fn definition(class: u8, text: impl Into<Text>, code: &'static str, pointer: impl Into<Text>) -> Self {
        let status = if matches!(code, "duplicate_key" | "number_range" | "too_deep") { 400 } else { 422 };
        Self { class, input: Input::Definition(text.into()), status, code, pointer: pointer.into() }
    }

    /// A request without a body whose answer is a problem without a field.
    pub fn get(class: u8, path: impl Into<Text>, status: u16, code: &'static str) -> Self {
        Self::http(class, "GET", path, &[], b"", status, code)
    }

    /// A request.
    pub fn http(
        class: u8,
        method: &'static str,
        path: impl Into<Text>,
        headers: &[(&'static str, &str)],
        body: &[u8],
        status: u16,
        code: &'static str,
    ) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, Text::Owned((*value).to_owned()))).collect();
        let http = Http { method, path: path.into(), headers, body: body.to_vec() };
        Self { class, input: Input::Http(http), status, code, pointer: "".into() }
    }

    /// Bytes on a connection.
    pub fn raw(class: u8, bytes: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Self {
        Self { class, input: Input::Raw(bytes.into()), status, code, pointer: "".into() }
    }

    /// The same row with a pointer to a field.
    #[must_use]
    pub fn at(mut self, pointer: &'static str) -> Self {
        self.pointer = pointer.into();
        self
    }

    /// The input in a line, for a failure.
    pub fn shown(&self) -> String {
        let text = match &self.input {
            Input::Body(bytes) | Input::Raw(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Input::Run(text) | Input::Definition(text) => text.to_string(),
            Input::Http(http) => format!("{} {} {:?} {}", http.method, http.path, http.headers, String::from_utf8_lossy(&http.body)),
        };
        let short: String = text.chars().take(160).flat_map(char::escape_debug).collect();
        format!("class {}: {short}", self.class)
    }
}
