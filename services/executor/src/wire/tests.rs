//! Answers as providers send them, cut anywhere, and what is read from them.

use hopyard_contract::usage::Tokens;
use serde_json::json;

use super::{Call, Meter, Wire, chat};

fn tokens(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Option<Tokens> {
    Some(Tokens { input, output, cache_read, cache_write })
}

/// Reads an answer in pieces of every size up to 7 and as a whole; all of them say the same.
fn read(wire: Wire, kind: &str, answer: &str) -> Call {
    let mut found = Vec::new();
    for size in (1..8).chain([answer.len().max(1)]) {
        let mut meter = Meter::new(wire, kind);
        answer.as_bytes().chunks(size).for_each(|piece| meter.feed(piece));
        found.push(meter.end());
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:#?}");
    found.remove(0)
}

const STREAM: &str = "text/event-stream; charset=utf-8";

#[test]
fn a_stream_of_messages_counts_what_its_end_says() {
    let start = json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 12, "output_tokens": 1, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4}}});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 60}});
    let whole = format!(
        "event: message_start\ndata: {start}\n\n: a comment\n\nevent: ping\r\ndata: {{\"type\": \"ping\"}}\r\n\r\nevent: message_delta\ndata: {delta}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let call = read(Wire::Anthropic, STREAM, &whole);
    assert_eq!(
        (call.model.as_deref(), call.tokens, call.stop.as_deref(), call.whole),
        (Some("m"), tokens(12, 60, 3, 4), Some("tool_use"), true)
    );
    let broken = &whole[..whole.find("event: message_delta").unwrap()];
    let call = read(Wire::Anthropic, STREAM, broken);
    assert_eq!((call.tokens, call.whole), (tokens(12, 1, 3, 4), false), "what came before it broke off");
}

#[test]
fn responses_tell_their_usage_in_the_last_event() {
    let usage = json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 7});
    let done = json!({"type": "response.completed", "response": {"model": "g", "status": "completed", "usage": usage}});
    let call = read(
        Wire::Responses,
        STREAM,
        &format!("data: {{\"type\":\"response.created\",\"response\":{{\"model\":\"g\"}}}}\n\ndata: {done}\n\n"),
    );
    assert_eq!(
        (call.model.as_deref(), call.tokens, call.whole),
        (Some("g"), tokens(60, 7, 40, 0), true),
        "cached tokens are a part of the input"
    );
}

#[test]
fn chat_tells_its_usage_when_it_is_asked() {
    let mut request = json!({"model": "g", "stream": true});
    chat::ask_for_usage(&mut request);
    assert_eq!(request["stream_options"], json!({"include_usage": true}));
    let mut whole = json!({"model": "g"});
    chat::ask_for_usage(&mut whole);
    assert!(whole.get("stream_options").is_none(), "a whole answer has it anyway");
    let usage = json!({"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}});
    let chunks = [
        json!({"model": "g", "choices": [{"delta": {"content": "x"}, "finish_reason": null}], "usage": null}),
        json!({"model": "g", "choices": [{"delta": {}, "finish_reason": "stop"}]}),
        json!({"model": "g", "choices": [], "usage": usage}),
    ];
    let text: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    let call = read(Wire::Chat, STREAM, &format!("{text}data: [DONE]\n\n"));
    assert_eq!((call.tokens, call.stop.as_deref(), call.whole), (tokens(30, 5, 20, 0), Some("stop"), true));
}

#[test]
fn gemini_counts_thoughts_as_output_and_its_last_chunk_counts() {
    let chunk = |output: u64, stop: Option<&str>| {
        let used = json!({"promptTokenCount": 90, "cachedContentTokenCount": 30, "candidatesTokenCount": output, "thoughtsTokenCount": 2});
        json!({"candidates": [{"finishReason": stop}], "modelVersion": "g", "usageMetadata": used})
    };
    let text = format!("data: {}\r\n\r\ndata: {}\r\n\r\n", chunk(1, None), chunk(8, Some("STOP")));
    let call = read(Wire::Gemini, STREAM, &text);
    assert_eq!((call.tokens, call.whole), (tokens(60, 10, 30, 0), true));
    let list = json!([chunk(1, None), chunk(8, Some("STOP"))]).to_string();
    assert_eq!(read(Wire::Gemini, "application/json", &list).tokens, tokens(60, 10, 30, 0));
}

#[test]
fn a_whole_answer_is_read_at_its_end_and_an_error_in_its_own_words() {
    let answer = json!({"model": "m", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2}}).to_string();
    let call = read(Wire::Anthropic, "application/json", &answer);
    assert_eq!((call.tokens, call.whole), (tokens(1, 2, 0, 0), true));
    let refused = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).to_string();
    assert_eq!(read(Wire::Anthropic, "application/json", &refused).error.as_deref(), Some("overloaded_error: Overloaded"));
    let refused = json!({"error": {"message": "no such model"}}).to_string();
    for wire in [Wire::Chat, Wire::Responses, Wire::Gemini] {
        assert_eq!(read(wire, "application/json", &refused).error.as_deref(), Some("no such model"), "{wire:?}");
    }
}

#[test]
fn nothing_that_a_provider_sends_is_too_odd() {
    for odd in [
        "",
        "data:",
        "data: {\n\n",
        "data: [1]\n\ndata: null\n\n",
        "\n\n\n",
        "data: {\"usage\": {\"prompt_tokens\": -1}}\n\n",
        "\u{fffd}\u{0}",
    ] {
        for wire in [Wire::Anthropic, Wire::Responses, Wire::Chat, Wire::Gemini] {
            for kind in [STREAM, "application/json", "text/html", ""] {
                assert_eq!(read(wire, kind, odd).tokens, None, "{wire:?} {kind} {odd:?}");
            }
        }
    }
}
