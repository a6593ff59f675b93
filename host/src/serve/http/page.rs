//! The web page: files that are part of the program.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A file, where it is found, and its kind.
type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of the folder, by its name.
macro_rules! file {
    ($name:literal, $kind:expr) => {
        (concat!("/", $name), $kind, include_str!(concat!("../page/", $name)))
    };
}

const FILES: &[File] = &[
    ("/", HTML, include_str!("../page/index.html")),
    file!("answer.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("app.js", SCRIPT),
    file!("cluster.css", STYLE),
    file!("cluster.html", HTML),
    file!("cluster.js", SCRIPT),
    file!("composer.js", SCRIPT),
    file!("dialogs.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("export.js", SCRIPT),
    file!("files.js", SCRIPT),
    file!("follow.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("icon.svg", IMAGE),
    file!("inline.js", SCRIPT),
    file!("markdown.js", SCRIPT),
    file!("pace.js", SCRIPT),
    file!("plot.js", SCRIPT),
    file!("sidebar.js", SCRIPT),
    file!("store.js", SCRIPT),
    file!("style.css", STYLE),
    file!("theme.js", SCRIPT),
    file!("thread.js", SCRIPT),
];

/// Nothing comes from elsewhere, and nothing in an answer can become a script.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

fn response((_, kind, content): File) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Another version of the program may be there the next time.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether a path is one of the page's files.
pub fn has(path: &str) -> bool {
    FILES.iter().any(|file| file.0 == path)
}

/// All files of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.0, get(move || async { response(*file) })))
}
