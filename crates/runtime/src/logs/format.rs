//! One event as one line with SPIRE's keys: `time`, `level`, `msg`, then the fields in the order of their names.
//!
//! Text has the form `time="…" level=info msg="…" key=value`, JSON is one object. Operators' queries for SPIRE's logs
//! carry over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;

/// How lines are written.
pub(super) struct Lines {
    pub(super) format: LogFormat,
    pub(super) source_location: bool,
}

/// A field of this name holds a JSON object, whose members become fields of the line: for records whose fields are known only
/// when they are written, such as those of the audit log.
pub const MORE_FIELDS: &str = "more_fields";

/// Names that every line has; a field of such a name is moved aside, as SPIRE's logger does.
const TAKEN: [&str; 4] = ["time", "level", "msg", "file"];

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        self.write(out, time, event)
    }
}

impl Lines {
    fn write(&self, mut out: impl Write, time: String, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if self.source_location
            && let (Some(file), Some(line)) = (event.metadata().file(), event.metadata().line())
        {
            fields.values.insert("file".into(), format!("{file}:{line}").into());
        }
        let level = level_name(*event.metadata().level());
        match self.format {
            LogFormat::Json => {
                let mut line: serde_json::Map<_, _> =
                    fields.values.into_iter().map(|(key, value)| (key.into_owned(), value)).collect();
                line.extend(
                    [("time", time), ("level", level.into()), ("msg", fields.message)]
                        .map(|(key, value)| (key.to_owned(), value.into())),
                );
                writeln!(out, "{}", Value::Object(line))
            }
            LogFormat::Text => {
                write!(out, "time=\"{time}\" level={level} msg=")?;
                write_text(&mut out, &fields.message)?;
                for (key, value) in &fields.values {
                    write!(out, " {key}=")?;
                    match value {
                        Value::String(text) => write_text(&mut out, text)?,
                        other => write!(out, "{other}")?,
                    }
                }
                writeln!(out)
            }
        }
    }
}

/// SPIRE's spelling.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Bare where that is unambiguous; else quoted, with line ends and control characters escaped, so that no value can
/// pretend to be another line or steer a terminal.
fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if text.bytes().all(plain) { out.write_str(text) } else { write!(out, "{text:?}") }
}

/// What an event carries.
#[derive(Default)]
struct Fields {
    message: String,
    /// Names are constants; one is copied only to move it aside.
    values: BTreeMap<Cow<'static, str>, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            // Where a record of the `log` crate came from; its own text is enough.
            name if name.starts_with("log.") => {}
            name if TAKEN.contains(&name) => drop(self.values.insert(format!("fields.{name}").into(), value)),
            name => drop(self.values.insert(name.into(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MORE_FIELDS
            && let Ok(Value::Object(more)) = serde_json::from_str(value)
        {
            let more = more.into_iter().filter(|(name, _)| !TAKEN.contains(&name.as_str()));
            return self.values.extend(more.map(|(name, value)| (name.into(), value)));
        }
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Collects lines at a fixed time.
    struct Collect(Lines, Arc<Mutex<String>>);

    impl<S: Subscriber> Layer<S> for Collect {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.write(&mut *self.1.lock().unwrap(), "2026-01-02T03:04:05Z".into(), event).unwrap();
        }
    }

    fn lines(format: LogFormat, source_location: bool, work: impl FnOnce()) -> String {
        let text = Arc::new(Mutex::new(String::new()));
        let collect = Collect(Lines { format, source_location }, text.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(collect), work);
        let text = text.lock().unwrap();
        text.clone()
    }

    #[test]
    fn text_lines_have_spires_keys_and_quote_what_needs_it() {
        let text = lines(LogFormat::Text, false, || {
            tracing::info!(spiffe_id = %"spiffe://a/b", attempts = 3, ok = true, plain = "a-b.c", "agent attested");
            tracing::warn!(error = "two\nlines \u{1b}[31m", "careful");
        });
        assert_eq!(
            text,
            concat!(
                r#"time="2026-01-02T03:04:05Z" level=info msg="agent attested" attempts=3 ok=true plain=a-b.c spiffe_id="spiffe://a/b""#,
                "\n",
                r#"time="2026-01-02T03:04:05Z" level=warning msg=careful error="two\nlines \u{1b}[31m""#,
                "\n"
            )
        );
    }

    #[test]
    fn json_lines_have_spires_keys_and_keep_numbers() {
        let text = lines(LogFormat::Json, false, || {
            tracing::error!(reason = "store_failed", count = 2_u64, "the \"store\" failed");
        });
        assert_eq!(
            text,
            concat!(
                r#"{"count":2,"level":"error","msg":"the \"store\" failed","reason":"store_failed","#,
                r#""time":"2026-01-02T03:04:05Z"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_field_never_takes_the_place_of_time_level_or_message() {
        let text = lines(LogFormat::Json, false, || {
            tracing::info!(time = "never", level = "none", msg = "other", "stopping");
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["level"], &line["msg"], &line["fields.msg"]),
            (&"info".into(), &"stopping".into(), &"other".into())
        );
    }

    #[test]
    fn the_members_of_more_fields_are_fields_of_the_line() {
        let work = || {
            let more = r#"{"csr":"ab","ttl":60,"level":"none","admin":true}"#;
            tracing::info!(kind = "audit", more_fields = more, "API accessed");
            tracing::info!(more_fields = "no object", other = r#"{"a":1}"#, "odd");
        };
        let text = lines(LogFormat::Text, false, work);
        assert_eq!(
            text,
            concat!(
                r#"time="2026-01-02T03:04:05Z" level=info msg="API accessed" admin=true csr=ab kind=audit ttl=60"#,
                "\n",
                r#"time="2026-01-02T03:04:05Z" level=info msg=odd more_fields="no object" other="{\"a\":1}""#,
                "\n"
            )
        );
    }

    #[test]
    fn the_source_location_is_named_on_request() {
        let text = lines(LogFormat::Text, true, || tracing::debug!("here"));
        assert!(text.contains("level=debug msg=here file=\"") && text.contains("format.rs:"), "{text}");
    }
}
