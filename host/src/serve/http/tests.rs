//! What clients see, with an engine that says always the same.

use super::door::{Doors, app};
use super::keys::{KeyRing, new_key};
use super::server::{Server, now};
use super::{Defaults, Texts, calls};
use crate::chat::template::{self, Template};
use crate::chat::tokenizer::Tokenizer;
use crate::serve::engine::{Ask, Ended, Event, Failed, Figures, Logprob, Logprobs, Token, Why};
use crate::synthetic;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use dair_core::format::tokenizer::TokenizerFile;
use dair_core::text::{Filters, Vocabulary};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;

/// The server's calls, and what they ask the engine for.
struct Calls {
    app: Router,
    asks: Receiver<Ask>,
    runtime: tokio::runtime::Runtime,
}

fn tokenizer() -> &'static Tokenizer<'static> {
    let bytes = Box::leak(synthetic::tokenizer_bytes(300).into_boxed_slice());
    let index = Box::leak(vec![0; Vocabulary::index_len(300)].into_boxed_slice());
    Box::leak(Box::new(Tokenizer::new(&TokenizerFile::parse(bytes).unwrap(), index).unwrap()))
}

impl Calls {
    fn new(queue: u32, keys: KeyRing) -> Self {
        Self::of(queue, keys, template::open("chatml", None).unwrap())
    }

    /// With another template than most.
    fn with(template: Template) -> Self {
        Self::of(9, KeyRing::default(), template)
    }

    fn of(queue: u32, keys: KeyRing, template: Template) -> Self {
        let (sender, asks) = channel();
        let texts = Texts::new(tokenizer(), Some(template));
        let server = Server {
            model: "tiny".into(),
            fingerprint: "fp_1".into(),
            created: now(),
            bytes: 7,
            arch: "llama".into(),
            weights: "q40".into(),
            seq_len: 2000,
            texts,
            defaults: Defaults { temperature: 0.8, top_p: 0.9, filters: Filters::OFF },
            figures: Arc::new(Figures::new()),
            queue,
            patience: Duration::from_secs(60),
            asks: Mutex::new(Some(sender)),
            waiting: Arc::new(AtomicU32::new(0)),
        };
        let doors = Doors { keys, origins: Vec::new(), is_local: true, body_bytes: 10_000, connections: 9, tls: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { app: app(Arc::new(server), doors), asks, runtime }
    }

    fn send(&self, request: Request<Body>) -> Response<Body> {
        self.runtime.block_on(self.app.clone().oneshot(request)).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Response<Body> {
        self.send(request(path, body.to_string()))
    }

    fn text(&self, response: Response<Body>) -> String {
        let bytes = self.runtime.block_on(to_bytes(response.into_body(), usize::MAX)).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// The object that a call gives.
    fn json(&self, response: Response<Body>) -> Value {
        serde_json::from_str(&self.text(response)).unwrap()
    }

    /// The prompt that the engine is asked to go on with, which nobody does.
    fn prompt_of(&self, path: &str, body: &Value) -> Vec<u32> {
        let call = self.runtime.spawn(self.app.clone().oneshot(request(path, body.to_string())));
        let ask = self.runtime.block_on(async {
            loop {
                match self.asks.try_recv() {
                    Ok(ask) => break ask,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        call.abort();
        ask.prompt
    }

    /// The same where the engine answers.
    fn answered(&self, path: &str, body: &Value, answer: fn(&Ask)) -> Response<Body> {
        let (app, request) = (self.app.clone(), request(path, body.to_string()));
        let call = self.runtime.spawn(app.oneshot(request));
        self.runtime.block_on(async {
            for _ in 0..10_000 {
                self.asks.try_iter().for_each(|mut ask| {
                    ask.ticket = None;
                    answer(&ask);
                });
                if call.is_finished() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            call.await.unwrap().unwrap()
        })
    }
}

fn request(path: &str, body: String) -> Request<Body> {
    Request::post(path).header(header::HOST, "localhost").body(Body::from(body)).unwrap()
}

const ENDED: Ended = Ended {
    why: Why::Stop,
    prompt: 9,
    cached: 4,
    drawn: 3,
    prefill: Duration::from_millis(5),
    decode: Duration::from_millis(6),
};

fn say(ask: &Ask, texts: &[&str]) {
    ask.listener.send(Event::Begun { cached: 4 }).unwrap();
    for text in texts {
        let logprob = ask.choice.logprobs.map(|_| {
            let one = Logprob { id: 65, logprob: -0.5 };
            Logprobs { drawn: one, top: vec![one] }
        });
        ask.listener.send(Event::Token(Token { text: (*text).to_owned(), logprob })).unwrap();
    }
    ask.listener.send(Event::Ended(ENDED)).unwrap();
}

fn hello(ask: &Ask) {
    say(ask, &["<think>Well", "</think>", "Hel", "lo."]);
}

fn question() -> Value {
    json!({ "messages": [{ "role": "user", "content": "Hi" }], "seed": 5 })
}

#[test]
fn a_chat_has_the_shape_of_openai() {
    let calls = Calls::new(9, KeyRing::default());
    let mut got = calls.json(calls.answered("/v1/chat/completions", &question(), hello));
    let id = got["id"].take();
    assert!(id.as_str().unwrap().starts_with("chatcmpl-") && got["created"].take().is_u64());
    let want = json!({
        "id": null, "created": null, "object": "chat.completion", "model": "tiny", "system_fingerprint": "fp_1", "seed": 5,
        "choices": [{
            "index": 0, "finish_reason": "stop", "logprobs": null,
            "message": { "role": "assistant", "content": "Hello.", "refusal": null, "reasoning_content": "Well" },
        }],
        "usage": {
            "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": { "cached_tokens": 4 },
        },
    });
    assert_eq!(got, want);
}

#[test]
fn a_stream_has_the_role_first_and_an_end() {
    let calls = Calls::new(9, KeyRing::default());
    let mut body = question();
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    body["logprobs"] = true.into();
    let response = calls.answered("/v1/chat/completions", &body, hello);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream; charset=utf-8");
    let text = calls.text(response);
    let events: Vec<&str> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let (end, chunks) = events.split_last().unwrap();
    assert_eq!(*end, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let deltas = |field: &str| {
        let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str());
        texts.collect::<String>()
    };
    assert_eq!((deltas("content"), deltas("reasoning_content")), ("Hello.".into(), "Well".into()));
    let told = chunks.iter().filter(|chunk| chunk["choices"][0]["logprobs"].is_object());
    assert_eq!(told.count(), 4, "one for each token");
    let last = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!((&last["finish_reason"], &last["delta"]), (&"stop".into(), &json!({})));
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], 3);
    assert!(chunks[1].as_object().unwrap().contains_key("usage") && chunks[1]["usage"].is_null());
}

#[test]
fn several_answers_count_their_prompt_once() {
    let calls = Calls::new(9, KeyRing::default());
    let body = json!({ "prompt": ["a", "b"], "n": 2, "seed": 5 });
    let got = calls.json(calls.answered("/v1/completions", &body, |ask| say(ask, &["x", "y"])));
    let choices = got["choices"].as_array().unwrap();
    assert!(choices.iter().zip(0..).all(|(choice, index)| choice["index"] == index && choice["text"] == "xy"));
    assert_eq!((choices.len(), &got["usage"]["prompt_tokens"]), (4, &18.into()));
    assert_eq!(got["usage"]["completion_tokens"], 12);
}

#[test]
fn ollama_has_a_line_for_each_piece() {
    let calls = Calls::new(9, KeyRing::default());
    let body = json!({ "model": "tiny:latest", "prompt": "Hi", "options": { "num_predict": -1 } });
    let text = calls.text(calls.answered("/api/generate", &body, hello));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let joined = |field: &str| lines.iter().filter_map(|line| line[field].as_str()).collect::<String>();
    assert_eq!((joined("response"), joined("thinking")), ("Hello.".into(), "Well".into()));
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"], &last["eval_count"]), (&true.into(), &"stop".into(), &3.into()));
    let missing = calls.post("/api/chat", &json!({ "model": "other", "messages": [] }));
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(calls.json(missing)["error"].as_str().unwrap().contains("\"other\" not found"));
}

#[test]
fn ollama_loads_and_unloads_by_a_call_that_asks_nothing() {
    let calls = Calls::new(9, KeyRing::default());
    let chat = ("/api/chat", "message", json!({ "role": "assistant", "content": "" }));
    let generate = ("/api/generate", "response", json!(""));
    for (path, field, said) in [chat, generate] {
        for (keep_alive, reason) in
            [(json!(null), "load"), (json!("5m"), "load"), (json!(0), "unload"), (json!("0s"), "unload")]
        {
            for mut body in [json!({}), json!({ "messages": [], "prompt": "", "stream": true })] {
                body["keep_alive"] = keep_alive.clone();
                let mut got = calls.json(calls.post(path, &body));
                assert!(got["created_at"].take().is_string());
                let mut want = json!({ "model": "tiny", "created_at": null, "done": true, "done_reason": reason });
                want[field] = said.clone();
                assert_eq!(got, want, "{path} {body}");
            }
        }
        let wrong = calls.post(path, &json!({ "keep_alive": "soon" }));
        assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
        assert!(calls.json(wrong)["error"].as_str().unwrap().starts_with("keep_alive"));
    }
    assert!(calls.asks.try_recv().is_err(), "nothing was computed");
}

#[test]
fn ollama_is_told_what_this_model_does_not_take() {
    let calls = Calls::new(9, KeyRing::default());
    let message = |images: Value| json!({ "messages": [{ "role": "user", "content": "Hi", "images": images }] });
    for (path, body, field) in [
        ("/api/chat", message(json!(["iVBO"])), "messages[0].images"),
        ("/api/generate", json!({ "prompt": "Hi", "images": ["iVBO"] }), "images"),
        ("/api/generate", json!({ "images": ["iVBO"] }), "images"),
        ("/api/generate", json!({ "prompt": "Hi", "suffix": "." }), "suffix"),
        ("/api/generate", json!({ "prompt": "Hi", "think": "hard" }), "think"),
        ("/api/chat", json!({ "messages": [{ "role": "user", "content": "Hi" }], "think": 3 }), "think"),
    ] {
        let response = calls.post(path, &body);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(calls.json(response)["error"].as_str().unwrap().starts_with(field), "{body}");
    }
    for (path, body) in [("/api/chat", message(json!([]))), ("/api/generate", json!({ "prompt": "Hi", "images": [] }))]
    {
        assert_eq!(calls.answered(path, &body, hello).status(), StatusCode::OK, "{body}");
    }
}

#[test]
fn reasoning_is_asked_for_alike_in_both_calls_of_ollama() {
    let calls = Calls::with(template::open("deepseek3", None).unwrap());
    let chat = ("/api/chat", json!({ "messages": [{ "role": "user", "content": "Hi" }], "stream": false }));
    let generate = ("/api/generate", json!({ "prompt": "Hi", "stream": false }));
    for (path, mut body) in [chat, generate] {
        let mut prompt = |think: Value| {
            body["think"] = think;
            calls.prompt_of(path, &body)
        };
        let (with, without) = (prompt(json!(true)), prompt(json!(false)));
        assert_ne!(with, without, "{path}");
        for much in ["low", "medium", "high"] {
            assert_eq!(prompt(json!(much)), with, "{path}");
        }
    }
}

/// A question to a model that may call a tool.
fn with_tool() -> Value {
    let mut body = question();
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    body["tools"] = json!([{ "type": "function", "function": { "name": "weather", "parameters": parameters } }]);
    body
}

/// The model calls it.
fn call_weather(ask: &Ask) {
    assert!(ask.choice.constraint.is_none(), "it does so by itself");
    say(
        ask,
        &["I look.\n<tool", "_call>{\"name\": \"weather\", \"arguments\": {\"ci", "ty\": \"Paris\"}}</tool_call>"],
    );
}

#[test]
fn a_call_of_a_tool_has_the_shape_of_openai() {
    let calls = Calls::new(9, KeyRing::default());
    let got = calls.json(calls.answered("/v1/chat/completions", &with_tool(), call_weather));
    let choice = &got["choices"][0];
    let mut call = choice["message"]["tool_calls"][0].clone();
    assert!(call["id"].take().as_str().unwrap().starts_with("call_"));
    let function = json!({ "name": "weather", "arguments": "{\"city\": \"Paris\"}" });
    assert_eq!(call, json!({ "id": null, "type": "function", "function": function }));
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&"tool_calls".into(), &"I look.".into()));

    let mut body = with_tool();
    body["stream"] = true.into();
    let text = calls.text(calls.answered("/v1/chat/completions", &body, call_weather));
    let chunks = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    let chunks: Vec<Value> = chunks.filter_map(|chunk| serde_json::from_str(chunk).ok()).collect();
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let parts: Vec<&Value> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    assert_eq!(
        (&parts[0]["index"], &parts[0]["type"], &parts[0]["function"]["name"]),
        (&0.into(), &"function".into(), &"weather".into())
    );
    let arguments: String = parts.iter().filter_map(|part| part["function"]["arguments"].as_str()).collect();
    assert_eq!((parts.len(), &arguments[..]), (3, "{\"city\": \"Paris\"}"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn a_call_of_a_tool_has_the_shape_of_ollama() {
    let calls = Calls::new(9, KeyRing::default());
    let mut body = with_tool();
    for is_stream in [false, true] {
        body["stream"] = is_stream.into();
        let text = calls.text(calls.answered("/api/chat", &body, call_weather));
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let function = json!({ "name": "weather", "arguments": { "city": "Paris" } });
        assert_eq!(last["message"]["tool_calls"][0]["function"], function);
        assert_eq!((&last["done"], text.contains("I look.")), (&true.into(), true));
    }
}

/// A tool, and another one.
fn with_two_tools(choice: Value) -> Value {
    let mut body = with_tool();
    let time = json!({ "type": "function", "function": { "name": "time" } });
    body["tools"].as_array_mut().unwrap().push(time);
    body["tool_choice"] = choice;
    body
}

#[test]
fn some_of_the_tools_may_be_called_and_no_others() {
    let calls = Calls::new(9, KeyRing::default());
    let allowed = |mode: &str, names: &[&str]| {
        let tools: Vec<Value> =
            names.iter().map(|name| json!({ "type": "function", "function": { "name": name } })).collect();
        with_two_tools(json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": tools } }))
    };
    let prompt = calls.prompt_of("/v1/chat/completions", &with_two_tools(json!("auto")));
    for (mode, names, is_limited) in [
        ("auto", &["time"][..], true),
        ("required", &["time"][..], true),
        ("required", &["weather", "time"][..], true),
        // Whoever may call all is as free as without.
        ("auto", &["weather", "time"][..], false),
    ] {
        let body = allowed(mode, names);
        let answer: fn(&Ask) = if is_limited {
            |ask| {
                assert!(ask.choice.constraint.is_some());
                say(ask, &["<tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>"]);
            }
        } else {
            call_weather
        };
        let got = calls.json(calls.answered("/v1/chat/completions", &body, answer));
        assert_eq!(got["choices"][0]["finish_reason"], "tool_calls", "{body}");
        assert_eq!(calls.prompt_of("/v1/chat/completions", &body), prompt, "the model is told of all");
    }
    let error = &calls.json(calls.post("/v1/chat/completions", &allowed("auto", &["time", "nobody"])))["error"];
    assert_eq!(error["param"], "tool_choice.allowed_tools.tools[1]");
}

#[test]
fn nothing_is_told_of_a_forced_call_that_was_cut_before_its_name() {
    let calls = Calls::new(9, KeyRing::default());
    let cut: fn(&Ask) = |ask| {
        ask.listener.send(Event::Begun { cached: 0 }).unwrap();
        for text in ["<tool", "_call>", "\n{\"name\": \"wea"] {
            ask.listener.send(Event::Token(Token { text: text.into(), logprob: None })).unwrap();
        }
        ask.listener.send(Event::Ended(Ended { why: Why::Length, ..ENDED })).unwrap();
    };
    let mut body = with_two_tools(json!("required"));
    let got = calls.json(calls.answered("/v1/chat/completions", &body, cut));
    let choice = &got["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": "", "refusal": null }));
    body["stream"] = true.into();
    let text = calls.text(calls.answered("/v1/chat/completions", &body, cut));
    assert!(text.contains("\"finish_reason\":\"length\"") && !text.contains("wea") && !text.contains("tool"), "{text}");
    // Whoever was not forced may have meant it as text.
    body["stream"] = false.into();
    body["tool_choice"] = "auto".into();
    let got = calls.json(calls.answered("/v1/chat/completions", &body, cut));
    assert_eq!(got["choices"][0]["message"]["content"], "<tool_call>{\"name\": \"wea");
}

#[test]
fn tokens_are_where_they_are_in_prompt_and_answer_together() {
    let calls = Calls::new(9, KeyRing::default());
    for (prompt, chars) in [(json!("caf\u{e9}"), 4), (json!([97, 98]), 2)] {
        for echo in [false, true] {
            for stream in [false, true] {
                let body = json!({ "prompt": prompt, "logprobs": 1, "echo": echo, "stream": stream });
                let text = calls.text(calls.answered("/v1/completions", &body, |ask| say(ask, &["A", "A", "A"])));
                let chunks = text
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line)).ok());
                let choices: Vec<Value> = chunks.map(|chunk| chunk["choices"][0].clone()).collect();
                let all =
                    choices.iter().flat_map(|one| one["logprobs"]["text_offset"].as_array().into_iter().flatten());
                let offsets: Vec<u64> = all.filter_map(Value::as_u64).collect();
                assert_eq!(offsets, [chars, chars + 1, chars + 2], "{body}");
                let said: String = choices.iter().filter_map(|one| one["text"].as_str()).collect();
                assert_eq!(said.chars().count() as u64, 3 + if echo { chars } else { 0 }, "{body}: {said}");
            }
        }
    }
}

#[test]
fn a_form_reaches_the_engine_and_tools_can_be_forced_or_kept_away() {
    let calls = Calls::new(9, KeyRing::default());
    let constrained = |ask: &Ask| {
        assert!(ask.choice.constraint.is_some());
        say(ask, &["{}"]);
    };
    let with = |field: &str, value: Value| {
        let mut body = with_tool();
        body[field] = value;
        body
    };
    for body in [
        with("tool_choice", json!("required")),
        with("tool_choice", json!({ "type": "function", "function": { "name": "weather" } })),
        with("parallel_tool_calls", json!(false)),
        with("response_format", json!({ "type": "json_object" })),
    ] {
        assert_eq!(calls.answered("/v1/chat/completions", &body, constrained).status(), StatusCode::OK, "{body}");
    }
    let body = json!({ "prompt": "a", "structured_outputs": { "choice": ["x", "y"] } });
    assert_eq!(calls.answered("/v1/completions", &body, constrained).status(), StatusCode::OK);
    let body = json!({ "prompt": "a", "format": { "type": "object" } });
    assert_eq!(calls.answered("/api/generate", &body, constrained).status(), StatusCode::OK);
    // Who may not call says what looks like a call.
    let got = calls.json(calls.answered("/v1/chat/completions", &with("tool_choice", json!("none")), call_weather));
    assert!(got["choices"][0]["message"]["content"].as_str().unwrap().contains("<tool_call>"));
    let both = with("tool_choice", json!("required"));
    let both = {
        let mut both = both;
        both["response_format"] = json!({ "type": "json_object" });
        both
    };
    assert_eq!(calls.json(calls.post("/v1/chat/completions", &both))["error"]["param"], "response_format");
}

#[test]
fn what_is_asked_for_reaches_the_engine() {
    let calls = Calls::new(9, KeyRing::default());
    let mut body = question();
    for (field, value) in [
        ("max_tokens", json!(7)),
        ("stop", json!("END")),
        ("logit_bias", json!({ "65": -100, "66": 2.5 })),
        ("ignore_eos", json!(true)),
    ] {
        body[field] = value;
    }
    let response = calls.answered("/v1/chat/completions", &body, |ask| {
        let asked = (ask.max_tokens, ask.stop.clone(), ask.choice.bias.len(), ask.ignore_eos, ask.prompt.is_empty());
        assert_eq!(asked, (7, vec!["END".to_owned()], 2, true, false));
        hello(ask);
    });
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn failures_have_their_status() {
    let calls = Calls::new(9, KeyRing::default());
    let fail: [(fn(&Ask), _); 3] = [
        (|ask| drop(ask.listener.send(Event::Failed(Failed::Late))), StatusCode::GATEWAY_TIMEOUT),
        (|ask| drop(ask.listener.send(Event::Failed(Failed::Ending))), StatusCode::SERVICE_UNAVAILABLE),
        (
            |ask| drop(ask.listener.send(Event::Failed(Failed::Broken("no disk".into())))),
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
    ];
    for (answer, status) in fail {
        let response = calls.answered("/v1/chat/completions", &question(), answer);
        assert_eq!(response.status(), status);
        assert_eq!(calls.json(response)["error"]["type"], "server_error");
    }
    // In the middle of a stream it is the last event.
    let mut body = question();
    body["stream"] = true.into();
    let response = calls.answered("/v1/chat/completions", &body, |ask| {
        ask.listener.send(Event::Begun { cached: 0 }).unwrap();
        ask.listener.send(Event::Token(Token { text: "Hel".into(), logprob: None })).unwrap();
        ask.listener.send(Event::Failed(Failed::Broken("no disk".into()))).unwrap();
    });
    let text = calls.text(response);
    let last = text.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"]["message"], "no disk");
}

#[test]
fn nonsense_is_refused_by_field() {
    let calls = Calls::new(9, KeyRing::default());
    let with = |field: &str, value: Value| {
        let mut body = question();
        body[field] = value;
        body
    };
    for (path, body, param) in [
        ("/v1/chat/completions", json!({}), "messages"),
        ("/v1/chat/completions", with("temperature", json!(-1)), "temperature"),
        ("/v1/chat/completions", with("temperature", json!("hot")), "temperature"),
        ("/v1/chat/completions", with("n", json!(1000)), "n"),
        ("/v1/chat/completions", with("stop", json!([""])), "stop"),
        ("/v1/chat/completions", with("stop", json!(vec!["x"; 99])), "stop"),
        ("/v1/chat/completions", with("max_tokens", json!(0)), "max_tokens"),
        ("/v1/chat/completions", with("logit_bias", json!({ "9999": 1 })), "logit_bias"),
        ("/v1/chat/completions", with("logit_bias", json!({ "65": "x" })), "logit_bias"),
        ("/v1/chat/completions", with("top_logprobs", json!(2)), "top_logprobs"),
        ("/v1/chat/completions", with("tools", json!([{}])), "tools[0]"),
        ("/v1/chat/completions", with("tool_choice", json!("required")), "tool_choice"),
        (
            "/v1/chat/completions",
            with("tools", json!([{"type": "function", "function": {"name": "a b"}}])),
            "tools[0].function.name",
        ),
        ("/v1/chat/completions", with("tool_choice", json!("sometimes")), "tool_choice"),
        ("/v1/chat/completions", with("response_format", json!({ "type": "xml" })), "response_format"),
        ("/v1/chat/completions", with("json_schema", json!({ "type": "elephant" })), "json_schema"),
        ("/v1/completions", json!({ "prompt": "a", "grammar": "start: nobody" }), "grammar"),
        ("/v1/completions", json!({ "prompt": [1.5] }), "prompt"),
        ("/v1/completions", json!({ "prompt": [300] }), "prompt"),
        ("/v1/completions", json!({ "prompt": "a".repeat(5000) }), "prompt"),
        ("/v1/completions", json!({ "prompt": "a", "suffix": "b" }), "suffix"),
        ("/tokenize", json!({}), "content"),
        ("/detokenize", json!({ "tokens": [300] }), "tokens"),
    ] {
        let response = calls.post(path, &body);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(calls.json(response)["error"]["param"], param, "{body}");
    }
    for (path, status) in [("/v1/nothing", 404), ("/v1/embeddings", 404), ("/health", 405)] {
        assert_eq!(calls.post(path, &json!({})).status().as_u16(), status, "{path}");
    }
    let large = calls.send(request("/v1/completions", " ".repeat(10_001)));
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(calls.json(large)["error"]["message"].as_str().unwrap().contains("--max-body-mib"));
}

#[test]
fn too_many_are_told_to_come_back() {
    let calls = Calls::new(1, KeyRing::default());
    let waiting =
        calls.runtime.spawn(calls.app.clone().oneshot(request("/v1/chat/completions", question().to_string())));
    calls.runtime.block_on(async {
        while calls.asks.try_recv().map(std::mem::forget).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let response = calls.post("/v1/chat/completions", &question());
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(calls.json(response)["error"]["type"], "rate_limit_error");
    waiting.abort();
}

#[test]
fn with_keys_only_the_page_and_health_are_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let (key, line) = new_key("ann").unwrap();
    std::fs::write(folder.path().join("keys"), line).unwrap();
    let calls = Calls::new(9, KeyRing::read(&folder.path().join("keys")).unwrap());
    let get = |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path).header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        calls.send(request.body(Body::empty()).unwrap()).status().as_u16()
    };
    let bearer = format!("Bearer {key}");
    for path in ["/v1/models", "/metrics", "/cluster", "/api/tags"] {
        assert_eq!(get(path, &[]), 401, "{path}");
        assert_eq!(get(path, &[("authorization", "Bearer dair-1")]), 401, "{path}");
        assert_eq!(get(path, &[("authorization", &bearer)]), 200, "{path}");
        assert_eq!(get(path, &[("x-api-key", &key)]), 200, "{path}");
    }
    for path in ["/", "/app.js", "/style.css", "/health", "/openapi.json"] {
        assert_eq!(get(path, &[]), 200, "{path}");
    }
    assert_eq!(get("/v1/models", &[("authorization", &bearer), ("origin", "https://evil.example")]), 403);
}

#[test]
fn errors_have_the_shape_of_the_api_that_their_path_belongs_to() {
    let calls = Calls::new(9, KeyRing::default());
    for (path, status) in [("/api/nothing", 404), ("/api/tags", 405), ("/api/chat", 400)] {
        let response = calls.send(request(path, "{".into()));
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert!(calls.json(response)["error"].is_string(), "{path}");
    }
    let nobody = Request::get("/v1/models/%FF").header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let response = calls.send(nobody);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(calls.json(response)["error"]["message"].is_string());
}

#[test]
fn a_seed_is_told_as_it_was_given() {
    let calls = Calls::new(9, KeyRing::default());
    for seed in [-7_i64, 0, 1 << 53] {
        let body = json!({ "prompt": "a", "seed": seed });
        assert_eq!(calls.json(calls.answered("/v1/completions", &body, hello))["seed"], seed);
        let mut body = question();
        body["seed"] = seed.into();
        assert_eq!(calls.json(calls.answered("/v1/chat/completions", &body, hello))["seed"], seed);
    }
}

/// What `GET /openapi.json` gives.
fn document() -> Value {
    serde_json::from_str(include_str!("openapi.json")).unwrap()
}

#[test]
fn the_document_has_all_calls_and_no_others() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let there: BTreeSet<String> = calls().into_iter().map(|(path, _)| path.replace("{*", "{")).collect();
    assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), there);

    let folder = tempfile::tempdir().unwrap();
    let (key, line) = new_key("ann").unwrap();
    std::fs::write(folder.path().join("keys"), line).unwrap();
    let calls = Calls::new(9, KeyRing::read(&folder.path().join("keys")).unwrap());
    for (path, item) in paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let status = |key: &str| {
                let request = Request::builder().method(&method).uri(path.replace("{name}", "tiny"));
                let request = request.header(header::HOST, "localhost").header("x-api-key", key);
                calls.send(request.body(Body::from("{")).unwrap()).status()
            };
            let (known, stranger) = (status(&key), status("somebody"));
            let Some(call) = item.get(method.as_str().to_lowercase()) else {
                assert_eq!(known, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                continue;
            };
            let has = |status: StatusCode| call["responses"].get(status.as_str()).is_some();
            assert!(has(known), "{method} {path} gives {known}");
            assert_eq!(has(StatusCode::UNAUTHORIZED), stranger == StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(has(StatusCode::UNAUTHORIZED), call["security"].is_null(), "{method} {path}");
        }
    }
}

#[test]
fn what_the_document_refers_to_is_there_and_nothing_else() {
    let document = document();
    let mut wanted = BTreeSet::new();
    references(&document, &mut wanted);
    let components = document["components"].as_object().unwrap();
    let kinds = components.iter().filter(|(kind, _)| *kind != "securitySchemes");
    let there = kinds
        .flat_map(|(kind, all)| all.as_object().unwrap().keys().map(move |name| format!("#/components/{kind}/{name}")));
    assert_eq!(wanted, there.collect::<BTreeSet<_>>());
    let named = document["security"].as_array().unwrap().iter().flat_map(|way| way.as_object().unwrap().keys());
    let schemes = components["securitySchemes"].as_object().unwrap();
    assert_eq!(named.collect::<BTreeSet<_>>(), schemes.keys().collect::<BTreeSet<_>>());
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = value["$ref"].as_str() {
        found.insert(reference.to_owned());
    }
    let within =
        value.as_array().into_iter().flatten().chain(value.as_object().into_iter().flat_map(|all| all.values()));
    within.for_each(|value| references(value, found));
}
