//! Questions over HTTP: which are to be asked, and what an answer makes of the deployment.
//!
//! Each has its turn in the deployment's record, so that it goes on after a crash; then it may be asked twice. An answer that cannot be
//! read is none: it is asked again, ever more slowly.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{
    call::{Asked, Body, Call, CallId, Reply, Turn},
    deployment::{Deployment, HookRun, QueryRun, RolloutState},
    name::ServiceName,
    spec::{
        ServiceSpec,
        strategy::{LifecycleHook, PrometheusQuery},
    },
    state::{Change, ServiceRecord, State},
    time::Timestamp,
};

/// A hook that is IN_PROGRESS is asked again after this, when it does not say (ECS).
const CALL_BACK_S: u64 = 30;
/// And after this at the latest.
const LONGEST_CALL_BACK_S: u64 = 3_600;
/// Who does not answer is asked again after this, then after twice that …
const FIRST_RETRY_MS: u64 = 1_000;
/// … up to this.
const LAST_RETRY_MS: u64 = 60_000;
/// Words of others are cut here.
const WORDS_MAX: usize = 200;

/// The questions of all deployments under way.
pub fn calls(state: &State) -> Vec<Call> {
    let mut calls = Vec::new();
    for (name, record) in state.services.iter() {
        let asks = |primary: &&Deployment| {
            primary.rollout_state == RolloutState::InProgress
                && !(primary.hooks.is_empty() && primary.queries.is_empty())
        };
        let Some(primary) = record.primary().filter(asks) else { continue };
        let Some(manifest) = state.desired.services.get(name) else { continue };
        let id = |what| CallId { service: name.clone(), deployment: primary.id, what };
        for (run, turn) in primary.hooks.iter().filter_map(|run| Some((run, run.turn.as_ref().filter(|_| !run.done)?)))
        {
            let hook = manifest.spec.deployment_configuration.lifecycle_hooks.get(run.index);
            let Some(url) = hook.and_then(|hook| hook.url.as_ref()) else { continue };
            let id = id(Asked::Hook { stage: run.stage, index: run.index });
            let text = told(&id, &manifest.spec, record, primary, run).to_string();
            let body = Body { content_type: "application/json", text };
            calls.push(Call { id, at: turn.at, url: url.clone(), body });
        }
        let Some(prometheus) = &manifest.spec.deployment_configuration.alarms.prometheus else { continue };
        for run in &primary.queries {
            let Some(query) = prometheus.queries.iter().find(|query| query.name == run.name) else { continue };
            let text = format!("query={}", form(&expression(query, name, primary)));
            calls.push(Call {
                id: id(Asked::Query(run.name.clone())),
                at: run.turn.at,
                url: format!("{}/api/v1/query", prometheus.url.trim_end_matches('/')),
                body: Body { content_type: "application/x-www-form-urlencoded", text },
            });
        }
    }
    calls
}

/// What a hook is told: ECS's payload in the words that there are here. ▲ `executionId` is the same when it is asked again.
fn told(id: &CallId, spec: &ServiceSpec, record: &ServiceRecord, primary: &Deployment, run: &HookRun) -> Value {
    json!({
        "executionId": id.to_string(),
        "lifecycleStage": run.stage.word(),
        "service": id.service,
        "cluster": spec.cluster,
        "deployment": primary.id.to_string(),
        "targetRevision": primary.revision.to_string(),
        "sourceRevision": record.in_service.as_ref().map(ToString::to_string),
        "productionTrafficPercent": f64::from(record.shift.unwrap_or_default().per_mille) / 10.0,
    })
}

/// A query about this deployment.
fn expression(query: &PrometheusQuery, service: &ServiceName, primary: &Deployment) -> String {
    let family = primary.revision.family.as_str();
    query
        .query
        .replace("$service", service.as_str())
        .replace("$revision", &primary.revision.number.to_string())
        .replace("$family", family)
}

/// As a value of a form (`application/x-www-form-urlencoded`).
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Takes in what came of a question that was due `at`.
pub(crate) fn came(state: &State, now: Timestamp, id: &CallId, at: Timestamp, reply: &Reply) -> Vec<Change> {
    let Some(record) = state.services.get(&id.service) else { return Vec::new() };
    let mut record = record.clone();
    let primary = record.deployments.first_mut().filter(|primary| primary.id == id.deployment);
    let Some(primary) = primary else { return Vec::new() };
    match &id.what {
        Asked::Hook { stage, index } => {
            let is_it = |run: &&mut HookRun| (run.stage, run.index) == (*stage, *index) && !run.done;
            let Some(run) = primary.hooks.iter_mut().find(is_it) else { return Vec::new() };
            let Some(turn) = run.turn.as_mut().filter(|turn| turn.at == at) else { return Vec::new() };
            match hook_status(reply) {
                Ok(HookStatus::Succeeded) => run.done = true,
                Ok(HookStatus::Failed) => run.failed = true,
                Ok(HookStatus::InProgress(seconds)) => {
                    *turn = Turn { said: Some("IN_PROGRESS".to_owned()), ..Turn::first(now.plus_ms(seconds * 1_000)) };
                }
                Err(why) => again(turn, now, why),
            }
        }
        Asked::Query(name) => {
            let Some(run) = primary.queries.iter_mut().find(|run| run.name == *name && run.turn.at == at) else {
                return Vec::new();
            };
            let alarms = state.desired.services.get(&id.service).map(|it| &it.spec.deployment_configuration.alarms);
            let Some(prometheus) = alarms.and_then(|alarms| alarms.prometheus.as_ref()) else { return Vec::new() };
            match samples(reply) {
                Ok(true) => {
                    run.fired = run.fired.saturating_add(1);
                    run.turn = Turn::first(now.plus_ms(prometheus.interval().as_ms()));
                }
                Ok(false) => {
                    *run = QueryRun {
                        fired: 0,
                        turn: Turn::first(now.plus_ms(prometheus.interval().as_ms())),
                        ..run.clone()
                    }
                }
                // Unknown is not failed, and not well either: what was counted stays.
                Err(why) => again(&mut run.turn, now, why),
            }
        }
    }
    vec![Change::Service(record)]
}

fn again(turn: &mut Turn, now: Timestamp, why: String) {
    let unanswered = turn.unanswered.saturating_add(1);
    let pause = FIRST_RETRY_MS.saturating_mul(1 << (unanswered - 1).min(20)).min(LAST_RETRY_MS);
    *turn = Turn { at: now.plus_ms(pause), unanswered, said: Some(why) };
}

#[derive(Debug, PartialEq, Eq)]
enum HookStatus {
    Succeeded,
    Failed,
    /// Asked again after so many seconds.
    InProgress(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HookAnswer {
    hook_status: String,
    call_back_delay: Option<u64>,
}

fn hook_status(reply: &Reply) -> Result<HookStatus, String> {
    let body = body(reply)?;
    let answer: HookAnswer = serde_json::from_slice(body)
        .map_err(|_| "it does not answer with `{\"hookStatus\": \"SUCCEEDED\"}`, FAILED or IN_PROGRESS".to_owned())?;
    match answer.hook_status.as_str() {
        "SUCCEEDED" => Ok(HookStatus::Succeeded),
        "FAILED" => Ok(HookStatus::Failed),
        "IN_PROGRESS" => {
            Ok(HookStatus::InProgress(answer.call_back_delay.unwrap_or(CALL_BACK_S).clamp(1, LONGEST_CALL_BACK_S)))
        }
        other => Err(format!("it answers with the hookStatus {}", cut(other))),
    }
}

/// Whether a query has a result: a vector or matrix with samples, or a scalar that is not 0.
fn samples(reply: &Reply) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Answer {
        status: String,
        error: Option<String>,
        data: Option<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        result_type: String,
        result: Vec<Value>,
    }

    // A query that cannot be read is told with a status of 4xx, and in the body why.
    let parsed = match reply {
        Ok((_, body)) => serde_json::from_slice::<Answer>(body),
        Err(why) => return Err(cut(why)),
    };
    let answer = match (parsed, body(reply)) {
        (Ok(answer), _) => answer,
        (Err(_), Err(why)) => return Err(why),
        (Err(_), Ok(_)) => return Err("it does not answer as Prometheus does".to_owned()),
    };
    if answer.status != "success" {
        return Err(cut(&answer.error.unwrap_or_else(|| format!("its status is {}", answer.status))));
    }
    let Some(Data { result_type, result }) = answer.data else { return Err("its answer has no data".to_owned()) };
    match result_type.as_str() {
        "vector" | "matrix" => Ok(!result.is_empty()),
        "scalar" => {
            let value = result.get(1).and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok());
            value.map(|value| value != 0.0).ok_or_else(|| "its answer has no value".to_owned())
        }
        other => Err(format!("a {} is no answer to an alarm", cut(other))),
    }
}

fn body(reply: &Reply) -> Result<&[u8], String> {
    match reply {
        Ok((200, body)) => Ok(body),
        Ok((status, _)) => Err(format!("it answers with HTTP {status}")),
        Err(why) => Err(cut(why)),
    }
}

fn cut(words: &str) -> String {
    let plain: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    plain.trim().to_owned()
}

/// Of a hook that is asked: how it stands, in words.
pub(super) fn words(hook: &LifecycleHook, turn: &Turn) -> String {
    let url = hook.url.as_deref().unwrap_or_default();
    match &turn.said {
        None => format!("its hook {url} is asked"),
        Some(said) => format!("its hook {url}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str) -> Reply {
        Ok((status, body.as_bytes().to_vec()))
    }

    #[test]
    fn hooks_answer_as_functions_of_ecs_do() {
        let table = [
            (r#"{"hookStatus":"SUCCEEDED","more":1}"#, Ok(HookStatus::Succeeded)),
            (r#"{"hookStatus":"FAILED"}"#, Ok(HookStatus::Failed)),
            (r#"{"hookStatus":"IN_PROGRESS"}"#, Ok(HookStatus::InProgress(30))),
            (r#"{"hookStatus":"IN_PROGRESS","callBackDelay":5}"#, Ok(HookStatus::InProgress(5))),
            (r#"{"hookStatus":"IN_PROGRESS","callBackDelay":0}"#, Ok(HookStatus::InProgress(1))),
            (r#"{"hookStatus":"IN_PROGRESS","callBackDelay":99999}"#, Ok(HookStatus::InProgress(3_600))),
        ];
        for (body, expected) in table {
            assert_eq!(hook_status(&said(200, body)), expected, "{body}");
        }
        for (reply, words) in [
            (said(200, r#"{"hookStatus":"DONE\u0007"}"#), "hookStatus DONE"),
            (said(200, "ok"), "does not answer with"),
            (said(503, r#"{"hookStatus":"SUCCEEDED"}"#), "HTTP 503"),
            (Err("connection refused".to_owned()), "connection refused"),
        ] {
            let why = hook_status(&reply).unwrap_err();
            assert!(why.contains(words) && !why.contains(char::is_control), "{why}");
        }
    }

    #[test]
    fn a_query_fires_when_it_has_a_result() {
        let answer = |kind: &str, result: &str| {
            said(200, &format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#))
        };
        for (kind, result, fires) in [
            ("vector", "[]", false),
            ("vector", r#"[{"metric":{},"value":[1,"0.5"]}]"#, true),
            ("scalar", r#"[1,"0"]"#, false),
            ("scalar", r#"[1,"1"]"#, true),
        ] {
            assert_eq!(samples(&answer(kind, result)), Ok(fires), "{kind} {result}");
        }
        for (reply, words) in [
            (answer("scalar", r#"[1,"x"]"#), "no value"),
            (answer("string", r#"[1,"x"]"#), "a string is no answer"),
            (said(400, r#"{"status":"error","error":"parse error: unclosed"}"#), "parse error: unclosed"),
            (said(502, "<html>"), "HTTP 502"),
            (said(200, "<html>"), "as Prometheus does"),
            (Err("connection refused".to_owned()), "refused"),
        ] {
            let why = samples(&reply).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn who_does_not_answer_is_asked_ever_more_slowly() {
        let mut turn = Turn::first(Timestamp(0));
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                again(&mut turn, Timestamp(0), "no".to_owned());
                turn.at.0
            })
            .collect();
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn a_query_travels_as_a_form() {
        assert_eq!(form("a{b=\"c d\"} > 0.5+x&"), "a%7Bb%3D%22c+d%22%7D+%3E+0.5%2Bx%26");
    }
}
