//! HTTP requests: parsed, shown to the test, executed, answered.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::call::{Answer, Call};
use crate::cluster::Cluster;
use crate::selector::Selector;
use crate::state::{Event, Key, Refusal, State, text};
use crate::{exec, forward, kinds, patch};

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Serves until the runtime ends.
pub(crate) async fn serve(cluster: Arc<Cluster>, listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        let cluster = Arc::clone(&cluster);
        let _ = socket.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&cluster), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn reply(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(body(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let Refusal(code, reason, message) = refusal;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    let mut response = reply(*code, &status);
    if *code == 429 {
        response.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("1"));
    }
    response
}

async fn answer(cluster: Arc<Cluster>, mut request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (method, uri) = (request.method().as_str().to_owned(), request.uri().clone());
    let path = uri.path().to_owned();
    let mut call = Call::parse(&method, &path, uri.query().unwrap_or_default());
    let streams = matches!(call.subresource.as_str(), "exec" | "portforward" | "attach");
    if !streams && method != "GET" {
        let bytes = request.body_mut().collect().await.map_err(io::Error::other)?.to_bytes();
        call.body = serde_json::from_slice(&bytes).or_else(|_| serde_norway::from_slice(&bytes)).unwrap_or_default();
        if call.verb == "create" && call.name.is_empty() {
            text(&call.body, "/metadata/name").clone_into(&mut call.name);
        }
    }
    // Hooks may use the cluster, and wait: they get a thread of their own.
    let shown = {
        let (cluster, call) = (Arc::clone(&cluster), call.clone());
        tokio::task::spawn_blocking(move || cluster.show(call)).await.map_err(io::Error::other)?
    };
    let (number, answer) = shown;
    call.number = number;
    let content_type =
        request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    match answer {
        Answer::Refuse(code, reason, message) => return Ok(refused(&Refusal(code, reason, message))),
        Answer::Reset => return Err(io::Error::other("closed by the test")),
        Answer::Hang => std::future::pending::<()>().await,
        _ => {}
    }
    let response = if call.subresource == "exec" {
        exec::start(&cluster, &call, request, answer.clone())
    } else if call.subresource == "portforward" {
        forward::start(&cluster, &call, request)
    } else if call.verb == "watch" {
        watch(&cluster, &call)
    } else {
        carry_out(&cluster, &call, &path, &content_type)
    };
    let mut response = response;
    if let Some(date) = cluster.date().and_then(|date| date.parse().ok()) {
        response.headers_mut().insert("date", date);
    }
    match answer {
        Answer::GoThenReset => Err(io::Error::other("closed by the test")),
        Answer::CutBody(at) => Ok(cut(response, at).await?),
        _ => Ok(response),
    }
}

/// An answer that breaks off after so many bytes.
async fn cut(response: Response<Body>, at: usize) -> io::Result<Response<Body>> {
    let (mut head, body) = response.into_parts();
    let whole = body.collect().await?.to_bytes();
    head.headers.insert("content-length", whole.len().into());
    let frames = vec![Ok(Frame::data(whole.slice(..at.min(whole.len())))), Err(io::Error::other("cut by the test"))];
    Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))))
}

fn carry_out(cluster: &Cluster, call: &Call, path: &str, content_type: &str) -> Response<Body> {
    if call.verb == "discover" {
        return discover(cluster, call, path);
    }
    let mut state = cluster.state();
    let result = act(cluster, &mut state, call, content_type);
    drop(state);
    if call.is_write() {
        cluster.tell_watchers();
    }
    match result {
        Ok((_, Value::String(log))) => Response::new(body(log)),
        Ok((code, value)) => reply(code, &value),
        Err(refusal) => refused(&refusal),
    }
}

fn discover(cluster: &Cluster, call: &Call, path: &str) -> Response<Body> {
    let state = cluster.state();
    let document = match path.trim_end_matches('/') {
        "/version" => {
            Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64"}))
        }
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        "/apis" => Some(kinds::groups(&state.kinds)),
        "/healthz" | "/livez" | "/readyz" => return Response::new(body("ok")),
        _ if call.version.is_empty() && !call.group.is_empty() => Some(kinds::group(&state.kinds, &call.group)),
        _ => kinds::resources(&state.kinds, &call.group, &call.version),
    };
    match document {
        Some(document) => reply(200, &document),
        None => refused(&Refusal(404, "NotFound", "the server could not find the requested resource".to_owned())),
    }
}

/// Returns an object as a version of its kind shows it.
fn shown(mut object: Value, call: &Call) -> Value {
    object["apiVersion"] = kinds::api_version(&call.group, &call.version).into();
    object
}

/// Returns the request that a review asks about.
fn asked_about(review: &Value) -> Call {
    let of = |name: &str| text(review, &format!("/spec/resourceAttributes/{name}")).to_owned();
    const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
    Call {
        verb: VERBS.into_iter().find(|verb| *verb == of("verb")).unwrap_or_default(),
        group: of("group"),
        namespace: of("namespace"),
        resource: of("resource"),
        subresource: of("subresource"),
        ..Call::default()
    }
}

fn act(cluster: &Cluster, state: &mut State, call: &Call, content_type: &str) -> Result<(u16, Value), Refusal> {
    if matches!(call.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io") {
        let mut body = call.body.clone();
        body["status"] = json!({"allowed": cluster.allows(&asked_about(&call.body))});
        return Ok((201, body));
    }
    let missing = || Refusal(404, "NotFound", "the server could not find the requested resource".to_owned());
    let kind = state.kind(&call.group, &call.resource).cloned().ok_or_else(missing)?;
    if !kind.versions.contains(&call.version) {
        return Err(missing());
    }
    let key = Key {
        group: call.group.clone(),
        plural: call.resource.clone(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
    };
    if call.is_dry_run() {
        return rehearsed(state, &key, call, content_type);
    }
    let selector = selector(call);
    match (call.verb, call.subresource.as_str()) {
        ("list", _) => page(state, call, &kind.kind, &selector),
        ("get", "") => {
            let object = state.objects.get(&key).cloned();
            let absent = Refusal(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name));
            object.map(|object| (200, shown(object, call))).ok_or(absent)
        }
        ("get", "log") => {
            if state.objects.contains_key(&key) {
                Ok((200, Value::String(cluster.log_of(&call.namespace, &call.name))))
            } else {
                Err(Refusal(404, "NotFound", format!("pods \"{}\" not found", key.name)))
            }
        }
        ("get", "scale") => scale_of(state, &key).map(|scale| (200, scale)),
        ("get", "status") => {
            state.objects.get(&key).cloned().map(|object| (200, shown(object, call))).ok_or_else(missing)
        }
        ("create", "eviction") => {
            state.delete(&key).map(|_| (201, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})))
        }
        ("create", "") => {
            let made = state.create(&call.group, &call.resource, &call.namespace, call.body.clone())?;
            Ok((201, shown(made, call)))
        }
        ("update", "") => {
            let object = call.body.clone();
            let status = state.objects.get(&key).and_then(|known| known.get("status")).cloned();
            let changed = state.change(&key, |known| {
                *known = object;
                if let Some(status) = status {
                    known["status"] = status;
                }
                Ok(())
            })?;
            Ok((200, shown(changed, call)))
        }
        ("patch", "") if content_type.starts_with("application/apply-patch") && !state.objects.contains_key(&key) => {
            let made = state.create(&call.group, &call.resource, &call.namespace, call.body.clone())?;
            Ok((201, shown(made, call)))
        }
        ("patch", "") => {
            let changed = state.change(&key, |known| patched(known, &call.body, content_type))?;
            Ok((200, shown(changed, call)))
        }
        ("update" | "patch", "status") => {
            let changed = state.change(&key, |known| {
                let mut copy = known.clone();
                if call.verb == "update" {
                    copy["status"] = call.body["status"].clone()
                } else {
                    patched(&mut copy, &call.body, content_type)?
                }
                known["status"] = copy["status"].clone();
                Ok(())
            })?;
            Ok((200, shown(changed, call)))
        }
        ("update" | "patch", "scale") => {
            let mut scale = scale_of(state, &key)?;
            if call.verb == "update" {
                scale = call.body.clone()
            } else {
                patched(&mut scale, &call.body, content_type)?
            }
            let replicas = scale.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
            state.change(&key, |known| {
                known["spec"]["replicas"] = replicas;
                Ok(())
            })?;
            scale_of(state, &key).map(|scale| (200, scale))
        }
        ("delete", "") => {
            let uid = |object: &Value| text(object, "/metadata/uid").to_owned();
            let wanted = text(&call.body, "/preconditions/uid");
            if !wanted.is_empty() && state.objects.get(&key).is_some_and(|found| uid(found) != wanted) {
                return Err(Refusal(
                    409,
                    "Conflict",
                    "the uid in the precondition is that of another object".to_owned(),
                ));
            }
            state.delete(&key).map(|object| (200, shown(object, call)))
        }
        ("deletecollection", _) => {
            let names: Vec<String> = state
                .list(&call.group, &call.resource, &call.namespace, &selector)
                .iter()
                .map(|object| text(object, "/metadata/name").to_owned())
                .collect();
            for name in names {
                state.delete(&Key { name, ..key.clone() })?;
            }
            Ok((200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})))
        }
        _ => Err(Refusal(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource".to_owned(),
        )),
    }
}

/// What a request would come to; nothing is changed.
fn rehearsed(state: &State, key: &Key, call: &Call, content_type: &str) -> Result<(u16, Value), Refusal> {
    let there = state.objects.get(key).cloned();
    let absent = || Refusal(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name));
    match call.verb {
        "create" if there.is_some() => {
            Err(Refusal(409, "AlreadyExists", format!("{} \"{}\" already exists", key.plural, key.name)))
        }
        "create" => Ok((201, call.body.clone())),
        "patch" => {
            let mut object = there.ok_or_else(absent)?;
            patched(&mut object, &call.body, content_type)?;
            Ok((200, object))
        }
        "delete" => there.map(|object| (200, object)).ok_or_else(absent),
        _ => Err(Refusal(400, "BadRequest", format!("a dry run of {} is not known", call.verb))),
    }
}

fn patched(object: &mut Value, change: &Value, content_type: &str) -> Result<(), Refusal> {
    match content_type.split(';').next().unwrap_or_default() {
        "application/json-patch+json" => {
            patch::json(object, change).map_err(|problem| Refusal(422, "Invalid", problem))?
        }
        "application/strategic-merge-patch+json" | "application/apply-patch+yaml" => patch::strategic(object, change),
        _ => patch::merge(object, change),
    }
    Ok(())
}

fn scale_of(state: &State, key: &Key) -> Result<Value, Refusal> {
    let object =
        state.objects.get(key).ok_or(Refusal(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name)))?;
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]},
        "spec": {"replicas": object.pointer("/spec/replicas").cloned().unwrap_or(json!(1))},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or(json!(0))},
    }))
}

fn selector(call: &Call) -> Selector {
    let parameter = |name: &str| call.query.get(name).cloned().unwrap_or_default();
    Selector { labels: parameter("labelSelector"), fields: parameter("fieldSelector") }
}

/// Returns a page of a list. Items carry no version and kind, as the API server leaves them out.
fn page(state: &State, call: &Call, kind: &str, selector: &Selector) -> Result<(u16, Value), Refusal> {
    let all = state.list(&call.group, &call.resource, &call.namespace, selector);
    let number = |name: &str| call.query.get(name).and_then(|value| value.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0);
    let limit = number("limit").filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let items: Vec<Value> = all
        .iter()
        .skip(from)
        .take(limit)
        .map(|object| {
            let mut object = (*object).clone();
            if let Some(map) = object.as_object_mut() {
                map.remove("apiVersion");
                map.remove("kind");
            }
            object
        })
        .collect();
    let mut metadata = json!({"resourceVersion": state.version().to_string()});
    if from + items.len() < all.len() {
        metadata["continue"] = (from + items.len()).to_string().into();
    }
    Ok((
        200,
        json!({"kind": format!("{kind}List"), "apiVersion": kinds::api_version(&call.group, &call.version), "metadata": metadata, "items": items}),
    ))
}

fn watch(cluster: &Arc<Cluster>, call: &Call) -> Response<Body> {
    let asked = call.query.get("resourceVersion").filter(|version| !version.is_empty() && *version != "0");
    let mut first = Vec::new();
    let since = match asked {
        Some(version) => version.parse().unwrap_or(0),
        None => {
            // Without a version: everything that is there, then what changes.
            let state = cluster.state();
            first.extend(
                state
                    .list(&call.group, &call.resource, &call.namespace, &selector(call))
                    .into_iter()
                    .map(|object| line("ADDED", &shown(object.clone(), call))),
            );
            state.version()
        }
    };
    let (call, cluster) = (call.clone(), Arc::clone(cluster));
    let deadline = call.query.get("timeoutSeconds").and_then(|text| text.parse::<u64>().ok()).unwrap_or(300);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(deadline);
    let changes = futures_util::stream::unfold((since, cluster, call), move |(since, cluster, call)| async move {
        let mut changed = cluster.changed();
        loop {
            let (events, version) = {
                let state = cluster.state();
                let events: Vec<Event> = state
                    .history
                    .iter()
                    .filter(|event| event.version > since && is_watched(event, &call))
                    .cloned()
                    .collect();
                (events, state.version())
            };
            if !events.is_empty() {
                let text: String =
                    events.into_iter().map(|event| line(event.what, &shown(event.object, &call))).collect();
                return Some((Ok(Frame::data(Bytes::from(text))), (version, cluster, call)));
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return None,
                end = changed.changed() => end.ok()?,
            }
        }
    });
    let first = futures_util::stream::iter(first.into_iter().map(|text| Ok(Frame::data(Bytes::from(text)))));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(first.chain(changes))));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn line(what: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": what, "object": object}))
}

fn is_watched(event: &Event, call: &Call) -> bool {
    event.key.group == call.group
        && event.key.plural == call.resource
        && (call.namespace.is_empty() || event.key.namespace == call.namespace)
        && selector(call).matches(&event.object)
}
