use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use metrics_exporter_prometheus::PrometheusHandle;
use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

use super::*;
use crate::config::TelemetryConfig;
use crate::prometheus::recorder;

fn descriptors() -> Vec<u8> {
    let method = |name: &str, server_streaming| MethodDescriptorProto {
        name: Some(name.into()),
        server_streaming: Some(server_streaming),
        ..Default::default()
    };
    let methods = vec![method("GetInfo", false), method("Watch", true)];
    let service =
        ServiceDescriptorProto { name: Some("Debug".into()), method: methods, ..Default::default() };
    let file = FileDescriptorProto {
        package: Some("spire.agent.debug.v1".into()),
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn meter() -> (RpcMeter, PrometheusHandle) {
    let recorder = recorder().unwrap();
    let values = recorder.handle();
    let config = TelemetryConfig { host_label: false, ..TelemetryConfig::default() };
    let telemetry = Telemetry::new(&config, "spire_agent", "example.org", None, vec![Box::new(recorder)]);
    let connections = [("spire.agent.debug.v1.Debug", "debug_api")];
    (RpcMeter::new(&telemetry, &[&descriptors()], &connections), values)
}

/// A message, and trailers that say `code`.
fn answer(code: Code) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", (code as i32).into());
    let frames = [Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
    Response::new(Body::new(StreamBody::new(stream::iter(frames))))
}

fn has(values: &PrometheusHandle, line: &str) -> bool {
    values.render().lines().any(|one| one == line)
}

fn open(values: &PrometheusHandle, count: usize) -> bool {
    has(values, &format!("spire_agent_debug_api_connections {count}"))
}

#[tokio::test]
async fn a_call_lasts_until_its_trailers_and_counts_with_their_status() {
    let (meter, values) = meter();
    let call = meter.begin("/spire.agent.debug.v1.Debug/GetInfo").unwrap();
    assert!(open(&values, 1));
    let mut body = call.follow(answer(Code::NotFound)).into_body();
    body.frame().await.unwrap().unwrap();
    assert!(open(&values, 1), "one message is there, and no end");
    body.frame().await.unwrap().unwrap();
    assert!(open(&values, 0));
    drop(body);
    assert!(has(&values, r#"spire_agent_rpc_debug_get_info{status="NotFound"} 1"#), "{}", values.render());
    assert!(has(&values, r#"spire_agent_rpc_debug_get_info_elapsed_time_count{status="NotFound"} 1"#));
    assert!(has(&values, "spire_agent_debug_api_connection 1"));
}

#[tokio::test]
async fn a_refusal_in_the_head_is_the_end() {
    let (meter, values) = meter();
    let call = meter.begin("/spire.agent.debug.v1.Debug/GetInfo").unwrap();
    let answer = call.follow(Status::permission_denied("no").into_http());
    assert!(open(&values, 0));
    drop(answer);
    assert!(has(&values, r#"spire_agent_rpc_debug_get_info{status="PermissionDenied"} 1"#));
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_ended_well_and_another_call_was_cancelled() {
    let (meter, values) = meter();
    let stream = meter.begin("/spire.agent.debug.v1.Debug/Watch").unwrap().follow(answer(Code::Ok));
    drop(stream);
    drop(meter.begin("/spire.agent.debug.v1.Debug/GetInfo").unwrap());
    assert!(open(&values, 0));
    assert!(has(&values, r#"spire_agent_rpc_debug_watch{status="OK"} 1"#), "{}", values.render());
    assert!(has(&values, r#"spire_agent_rpc_debug_get_info{status="Canceled"} 1"#));
}

#[tokio::test]
async fn names_that_a_caller_makes_up_are_not_counted() {
    let (meter, values) = meter();
    for path in ["", "/", "/spire.agent.debug.v1.Debug/Quux", "/a.B/GetInfo", "/Debug/GetInfo"] {
        assert!(meter.begin(path).is_none(), "{path}");
    }
    assert!(!values.render().contains("rpc"));
    assert!(RpcMeter::default().begin("/spire.agent.debug.v1.Debug/GetInfo").is_none());
}

#[tokio::test]
async fn a_layer_counts_all_calls_of_a_server() {
    let (meter, values) = meter();
    let service = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(answer(Code::Ok)) });
    let mut service = MeterLayer::new(meter).layer(service);
    for path in ["/spire.agent.debug.v1.Debug/GetInfo", "/other/Method"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let body = service.call(request).await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
    }
    assert!(has(&values, r#"spire_agent_rpc_debug_get_info{status="OK"} 1"#), "{}", values.render());
}

#[test]
fn a_call_takes_two_words_of_the_room_of_an_open_stream() {
    assert_eq!(size_of::<Call>(), 16);
    assert_eq!(size_of::<Metered>(), size_of::<Body>() + 16);
}
